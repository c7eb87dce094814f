//! The figures and how they are printed.

use anyhow::Result;
use serde::Serialize;

/// All figures of a run, in the order measured.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    figures: Vec<Figure>,
}

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

/// What a figure should be.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Goal {
    operator: &'static str,
    number: f64,
}

/// At least this.
pub(crate) const fn at_least(number: f64) -> Goal {
    Goal { operator: ">=", number }
}

/// At most this.
pub(crate) const fn at_most(number: f64) -> Goal {
    Goal { operator: "<=", number }
}

/// Exactly this.
pub(crate) const fn exactly(number: f64) -> Goal {
    Goal { operator: "==", number }
}

impl Figures {
    /// Files a figure.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        let name = name.into();
        eprintln!("  {name} = {value:.3} {unit}");
        self.figures.push(Figure { name, value, unit, goal });
    }

    pub(crate) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string_pretty(&self.figures)?);
            return Ok(());
        }
        for Figure { name, value, unit, goal: Goal { operator, number } } in &self.figures {
            println!("figure {name} {value:.3} {unit} goal {operator} {number}");
        }
        Ok(())
    }
}

/// The middle value (the mean of the two middle ones of an even number); 0 of nothing.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |index: usize| values.get(index).copied().unwrap_or(0.0);
    if values.len().is_multiple_of(2) { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 } else { at(middle) }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![]), 0.0);
        assert_eq!(median(vec![3.0]), 3.0);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 100.0]), 3.0);
    }
}
