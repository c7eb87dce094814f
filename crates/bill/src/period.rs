//! Periods of the UTC calendar: days are counted from the Unix epoch, instants are milliseconds since it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds of a day; UTC without leap seconds, as the Unix epoch counts.
pub const DAY_MS: i64 = 24 * HOUR_MS;
const HOUR_MS: i64 = 60 * 60 * 1_000;

/// Whole days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period {
    first_day: i64,
    end_day: i64,
}

/// Days that are no period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no period: expected a first day that is not behind the last, in the years 1 to 9999")]
pub struct NoPeriod;

/// How long a budget lasts, and when it begins anew: with the hour, day or month in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BudgetPeriod {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From the first of a month to the first of the next.
    Month,
}

/// One hour, day or month: the end is not in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// Its first millisecond.
    pub start_ms: i64,
    /// The first millisecond behind it.
    pub end_ms: i64,
}

impl Period {
    /// The earliest day: the first of January of the year 1.
    const MIN_DAY: i64 = -719_162;
    /// The latest: the last of December of the year 9999.
    const MAX_DAY: i64 = 2_932_896;

    /// From the first to the last day, both in it.
    ///
    /// # Errors
    /// [`NoPeriod`] if they are the wrong way round or cannot be written with four digits of a year.
    pub fn days(first: i64, last: i64) -> Result<Self, NoPeriod> {
        if first < Self::MIN_DAY || last > Self::MAX_DAY || first > last {
            return Err(NoPeriod);
        }
        Ok(Self { first_day: first, end_day: last + 1 })
    }

    /// A month, counted from 1.
    ///
    /// # Errors
    /// [`NoPeriod`] if there is no such month.
    pub fn month(year: u16, month: u8) -> Result<Self, NoPeriod> {
        if !(1..=12).contains(&month) {
            return Err(NoPeriod);
        }
        let (year, month) = (i64::from(year), i64::from(month));
        let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        Self::days(day_of(year, month, 1), day_of(next.0, next.1, 1) - 1)
    }

    /// The first day in it.
    pub const fn first_day(self) -> i64 {
        self.first_day
    }

    /// The last day in it.
    pub const fn last_day(self) -> i64 {
        self.end_day - 1
    }

    /// The first millisecond.
    pub const fn start_ms(self) -> i64 {
        self.first_day * DAY_MS
    }

    /// The first millisecond behind it.
    pub const fn end_ms(self) -> i64 {
        self.end_day * DAY_MS
    }

    /// Whether a day is in it.
    pub const fn contains(self, day: i64) -> bool {
        day >= self.first_day && day < self.end_day
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", date(self.first_day), date(self.last_day()))
    }
}

impl BudgetPeriod {
    /// All, the shortest first.
    pub const ALL: [Self; 3] = [Self::Hour, Self::Day, Self::Month];

    /// Its word, the same as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The one an instant is in.
    pub fn window(self, now_ms: i64) -> Window {
        let of_days = |first: i64, end: i64| Window {
            start_ms: first.saturating_mul(DAY_MS),
            end_ms: end.saturating_mul(DAY_MS),
        };
        match self {
            Self::Hour => {
                let start_ms = now_ms.saturating_sub(now_ms.rem_euclid(HOUR_MS));
                Window { start_ms, end_ms: start_ms.saturating_add(HOUR_MS) }
            }
            Self::Day => {
                let day = now_ms.div_euclid(DAY_MS);
                of_days(day, day + 1)
            }
            Self::Month => {
                let (year, month, _) = civil(now_ms.div_euclid(DAY_MS));
                let next = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                of_days(day_of(year, month, 1), day_of(next.0, next.1, 1))
            }
        }
    }
}

/// A day as `2026-11-30`.
pub fn date(day: i64) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The beginning of a day as `2026-11-30T00:00:00Z` (RFC 3339).
pub fn midnight(day: i64) -> String {
    format!("{}T00:00:00Z", date(day))
}

/// Year, month and day of the Gregorian calendar. Years begin in March here, so that the odd day is the last of its year; eras of
/// 400 years have 146097 days each.
fn civil(day: i64) -> (i64, i64, i64) {
    // From the first of March of the year 0.
    let day = day.saturating_add(719_468);
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, of_month)
}

/// The other way round.
fn day_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn days_have_their_dates() {
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(-1), "1969-12-31");
        assert_eq!(date(19_782), "2024-02-29");
        assert_eq!(date(20_787), "2026-11-30");
        assert_eq!(date(Period::MIN_DAY), "0001-01-01");
        assert_eq!(date(Period::MAX_DAY), "9999-12-31");
    }

    #[test]
    fn months_have_their_days() {
        let days = |year, month| Period::month(year, month).map(|period| period.last_day() - period.first_day() + 1);
        assert_eq!(days(2024, 2), Ok(29));
        assert_eq!(days(2100, 2), Ok(28));
        assert_eq!(days(2026, 12), Ok(31));
        assert_eq!(days(2026, 13), Err(NoPeriod));
        assert_eq!(days(2026, 0), Err(NoPeriod));
        assert_eq!(Period::days(2, 1), Err(NoPeriod));
        assert_eq!(Period::month(2026, 11).map(|period| period.to_string()), Ok("2026-11-01/2026-11-30".to_owned()));
    }

    proptest! {
        #[test]
        fn an_instant_is_in_its_window_and_windows_follow_each_other(
            now_ms in Period::MIN_DAY * DAY_MS..Period::MAX_DAY * DAY_MS,
            period in prop::sample::select(BudgetPeriod::ALL.to_vec()),
        ) {
            let window = period.window(now_ms);
            prop_assert!(window.start_ms <= now_ms && now_ms < window.end_ms);
            prop_assert_eq!(period.window(window.start_ms), window);
            prop_assert_eq!(period.window(window.end_ms - 1), window);
            prop_assert_eq!(period.window(window.end_ms).start_ms, window.end_ms);
        }

        #[test]
        fn dates_go_both_ways(day in Period::MIN_DAY..Period::MAX_DAY) {
            let (year, month, of_month) = civil(day);
            prop_assert_eq!(day_of(year, month, of_month), day);
        }

        #[test]
        fn no_instant_is_too_far(now_ms: i64, period in prop::sample::select(BudgetPeriod::ALL.to_vec())) {
            let window = period.window(now_ms);
            prop_assert!(window.start_ms <= window.end_ms);
        }
    }
}
