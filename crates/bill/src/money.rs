//! Money as integers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Nanos in one unit of a currency.
pub const NANO_PER_UNIT: u128 = 1_000_000_000;
const NANO_DIGITS: usize = 9;

/// Currencies of ISO 4217 by the number of digits of their smallest unit.
const CURRENCIES: [(u8, &str); 4] = [
    (0, "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"),
    (
        2,
        "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU \
         CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES \
         KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR \
         NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP \
         TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG",
    ),
    (3, "BHD IQD JOD KWD LYD OMR TND"),
    (4, "CLF UYW"),
];

/// A currency of ISO 4217.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Currency {
    code: &'static str,
    exponent: u8,
}

/// An amount of money: 10^-9 of the currency's unit. As text it is a decimal number of units without trailing zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nano(pub i128);

/// Three letters that are no currency's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no currency of ISO 4217: expected three capital letters such as `EUR`")]
pub struct UnknownCurrency;

/// Text that is no amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseAmountError {
    /// Something else than digits and one point between them.
    #[error("not a decimal number: expected digits, and a point and more digits if need be, as in `0.36`")]
    Malformed,
    /// Less than a nano matters.
    #[error("more than nine digits behind the point: price a larger unit instead")]
    TooPrecise,
    /// Beyond 2^64 nanos.
    #[error("too large: at most 18446744073 units")]
    TooLarge,
}

impl Currency {
    /// Its three letters.
    pub const fn code(self) -> &'static str {
        self.code
    }

    /// How many digits behind the point its smallest unit has.
    pub const fn exponent(self) -> u8 {
        self.exponent
    }

    /// Nanos in its smallest unit, such as a cent.
    pub const fn smallest_nano(self) -> u128 {
        10u128.pow(NANO_DIGITS as u32 - self.exponent as u32)
    }

    /// The amount with as many digits as the smallest unit has. What is smaller is not shown; round first.
    pub fn show(self, amount: Nano) -> String {
        let exponent = usize::from(self.exponent);
        decimal(amount.0.unsigned_abs(), NANO_DIGITS, exponent, exponent, amount.0 < 0)
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code)
    }
}

impl FromStr for Currency {
    type Err = UnknownCurrency;
    fn from_str(text: &str) -> Result<Self, UnknownCurrency> {
        CURRENCIES
            .iter()
            .find_map(|&(exponent, codes)| {
                let code = codes.split_whitespace().find(|code| *code == text)?;
                Some(Self { code, exponent })
            })
            .ok_or(UnknownCurrency)
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code)
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Nano {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// Both together, unless that is too much to be written down.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// A multiple of `step` nanos, the nearest; of two equally near ones the even.
    pub(crate) fn rounded(self, step: u128) -> Option<Self> {
        let steps = div_half_even(self.0.unsigned_abs(), step)?;
        let amount = i128::try_from(steps.checked_mul(step)?).ok()?;
        Some(Self(if self.0 < 0 { -amount } else { amount }))
    }
}

impl fmt::Display for Nano {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&decimal(self.0.unsigned_abs(), NANO_DIGITS, 0, NANO_DIGITS, self.0 < 0))
    }
}

impl Serialize for Nano {
    /// As text, because the numbers of JSON are read as floats by many.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A decimal number of units as nanos.
///
/// # Errors
/// [`ParseAmountError`]: signs, exponents, blanks and lone points are refused, as is what a nano cannot express.
pub fn parse_nano(text: &str) -> Result<u64, ParseAmountError> {
    let (whole, fraction) = text.split_once('.').map_or((text, None), |(whole, fraction)| (whole, Some(fraction)));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(whole) || fraction.is_some_and(|fraction| !is_number(fraction)) {
        return Err(ParseAmountError::Malformed);
    }
    let fraction = fraction.unwrap_or("").trim_end_matches('0');
    if fraction.len() > NANO_DIGITS {
        return Err(ParseAmountError::TooPrecise);
    }
    let digits = format!("{whole}{fraction:0<NANO_DIGITS$}");
    digits.parse().map_err(|_| ParseAmountError::TooLarge)
}

/// The nearest integer to a quotient; of two equally near ones the even. Nothing is divided by nothing.
pub(crate) fn div_half_even(dividend: u128, divisor: u128) -> Option<u128> {
    let (quotient, rest) = (dividend.checked_div(divisor)?, dividend.checked_rem(divisor)?);
    // What is missing to the next integer, compared instead of twice the rest, which may be too large.
    let missing = divisor.saturating_sub(rest);
    let is_up = rest > missing || (rest == missing && quotient % 2 == 1);
    quotient.checked_add(u128::from(is_up))
}

/// `value` times 10^-`digits`, with at least and at most so many digits behind the point; more are cut off.
pub(crate) fn decimal(value: u128, digits: usize, least: usize, most: usize, is_negative: bool) -> String {
    let text = format!("{value:0>width$}", width = digits + 1);
    let (whole, fraction) = text.split_at(text.len() - digits);
    let fraction = fraction.get(..most.min(digits)).unwrap_or(fraction);
    let kept = fraction.trim_end_matches('0').len().max(least.min(fraction.len()));
    let fraction = fraction.get(..kept).unwrap_or(fraction);
    let sign = if is_negative && value != 0 { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{sign}{whole}{point}{fraction}")
}

/// A quotient as a decimal number of at most twelve digits behind the point, the last one rounded half to even.
pub(crate) fn ratio(dividend: u128, divisor: u128) -> Option<String> {
    const DIGITS: usize = 12;
    let scale = 10u128.pow(DIGITS as u32);
    // The whole part apart: scaled up with it, large amounts would not fit.
    let whole = dividend.checked_div(divisor)?;
    let rest = dividend.checked_rem(divisor)?;
    let fraction = div_half_even(rest.checked_mul(scale)?, divisor)?;
    let scaled = whole.checked_mul(scale)?.checked_add(fraction)?;
    Some(decimal(scaled, DIGITS, 0, DIGITS, false))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_to_the_nano_and_no_further() {
        assert_eq!(parse_nano("0.36"), Ok(360_000_000));
        assert_eq!(parse_nano("12"), Ok(12_000_000_000));
        assert_eq!(parse_nano("0.000000001"), Ok(1));
        assert_eq!(parse_nano("0.5000000000000"), Ok(500_000_000));
        assert_eq!(parse_nano("0.0000000001"), Err(ParseAmountError::TooPrecise));
        assert_eq!(parse_nano("18446744074"), Err(ParseAmountError::TooLarge));
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", " 1", "1.2.3", "٣"] {
            assert_eq!(parse_nano(text), Err(ParseAmountError::Malformed), "{text}");
        }
    }

    #[test]
    fn halves_go_to_the_even_neighbour() {
        let rounded: Vec<_> = [4, 5, 6, 10, 14, 15, 16].map(|value| div_half_even(value, 10)).into();
        assert_eq!(rounded, [0, 0, 1, 1, 1, 2, 2].map(Some));
        assert_eq!(div_half_even(1, 0), None);
        assert_eq!(div_half_even(u128::MAX, u128::MAX), Some(1));
        assert_eq!(Nano(-25).rounded(10), Some(Nano(-20)));
        assert_eq!(Nano(-35).rounded(10), Some(Nano(-40)));
    }

    #[test]
    fn currencies_know_their_smallest_unit() {
        let show = |code: &str, nano| code.parse::<Currency>().map(|currency| currency.show(Nano(nano)));
        assert_eq!(show("EUR", 12_300_000_000), Ok("12.30".to_owned()));
        assert_eq!(show("JPY", 12_000_000_000), Ok("12".to_owned()));
        assert_eq!(show("KWD", -1_000_000), Ok("-0.001".to_owned()));
        assert_eq!(show("eur", 0), Err(UnknownCurrency));
        assert_eq!(show("EUX", 0), Err(UnknownCurrency));
        let mut codes: Vec<&str> = CURRENCIES.iter().flat_map(|(_, codes)| codes.split_whitespace()).collect();
        let known = codes.len();
        assert!(codes.iter().all(|code| code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase())));
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), known);
    }

    #[test]
    fn quotients_are_written_as_decimals() {
        assert_eq!(ratio(1, 3).as_deref(), Some("0.333333333333"));
        assert_eq!(ratio(3_600, 3_600).as_deref(), Some("1"));
        assert_eq!(ratio(5, 2).as_deref(), Some("2.5"));
        assert_eq!(ratio(1, 0), None);
    }

    proptest! {
        #[test]
        fn amounts_print_and_parse_back(nano in 0..=u64::MAX) {
            prop_assert_eq!(parse_nano(&Nano(i128::from(nano)).to_string()), Ok(nano));
        }

        #[test]
        fn rounding_moves_by_half_a_step_at_most(dividend: u64, divisor in 1..=u64::MAX) {
            let (dividend, divisor) = (i128::from(dividend), i128::from(divisor));
            let quotient = div_half_even(dividend as u128, divisor as u128).map(|quotient| quotient as i128);
            let error = quotient.map(|quotient| (quotient * divisor - dividend).abs() * 2);
            prop_assert!(error.is_some_and(|error| error <= divisor));
        }
    }
}
