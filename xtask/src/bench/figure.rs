//! A figure: the median over rounds, its 95 % interval by bootstrap, and the bound it is held to. Pure.
//!
//! The bootstrap draws from a fixed seed, so the same rounds give the same interval.

use serde_json::{Value, json};

const RESAMPLES: usize = 10_000;

/// What a figure is held to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// The interval must reach up to this.
    AtLeast(f64),
    /// The interval must reach down below this.
    Below(f64),
    /// It is only told.
    None,
}

/// One measured figure.
#[derive(Debug)]
pub(crate) struct Figure {
    pub(crate) bench: &'static str,
    pub(crate) case: String,
    pub(crate) metric: &'static str,
    pub(crate) unit: &'static str,
    /// The median of what was measured, in `unit`.
    pub(crate) value: f64,
    /// What it was measured beside in the same run; nothing if the rounds are no ratios.
    pub(crate) versus: &'static str,
    /// What the bound is about, by round: ratios, or values where there is nothing beside it.
    pub(crate) rounds: Vec<f64>,
    pub(crate) bound: Bound,
}

impl Figure {
    /// The head of the table of [`Figure::row`].
    pub(crate) const HEAD: &str =
        "bench    case             metric                value           median  95 % interval      bound";

    /// The median over the rounds.
    pub(crate) fn median(&self) -> f64 {
        median(&self.rounds)
    }

    /// The interval in which the median of further runs would be, 19 times of 20.
    pub(crate) fn interval(&self) -> (f64, f64) {
        bootstrap(&self.rounds)
    }

    /// Whether the interval reaches the bound.
    pub(crate) fn holds(&self) -> bool {
        let (low, high) = self.interval();
        match self.bound {
            Bound::AtLeast(bound) => high >= bound,
            Bound::Below(bound) => low < bound,
            Bound::None => true,
        }
    }

    /// A line of the table.
    pub(crate) fn row(&self) -> String {
        let (low, high) = self.interval();
        let bound = match self.bound {
            Bound::AtLeast(bound) => format!(">= {bound}"),
            Bound::Below(bound) => format!("< {bound}"),
            Bound::None => "-".to_owned(),
        };
        let value = format!("{:.1} {}", self.value, self.unit);
        format!(
            "{:8} {:16} {:21} {value:15} {:6.3}  {low:6.3} to {high:6.3}   {bound} {}",
            self.bench,
            self.case,
            self.metric,
            self.median(),
            if self.holds() { "holds" } else { "DOES NOT HOLD" }
        )
    }

    /// One line for machines.
    pub(crate) fn json(&self) -> Value {
        let (low, high) = self.interval();
        let ratio = if self.versus.is_empty() { Value::Null } else { json!(self.median()) };
        json!({
            "bench": self.bench, "case": self.case, "metric": self.metric, "unit": self.unit, "value": self.value,
            "versus": self.versus, "ratio": ratio, "rounds": self.rounds.len(), "low": low, "high": high,
            "holds": self.holds(),
        })
    }
}

/// The middle value; of an even number, the upper of the two.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 1, 2)
}

/// The value below which `part` of `of` parts are.
pub(crate) fn quantile(values: &[f64], part: usize, of: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (sorted.len() * part / of).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

fn bootstrap(values: &[f64]) -> (f64, f64) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut draw = || {
        // Marsaglia's xorshift: good enough to pick indices.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = usize::try_from(state % values.len().max(1) as u64).unwrap_or(0);
        values.get(at).copied().unwrap_or(f64::NAN)
    };
    let medians: Vec<f64> = (0..RESAMPLES)
        .map(|_| median(&std::iter::repeat_with(&mut draw).take(values.len()).collect::<Vec<_>>()))
        .collect();
    (quantile(&medians, 25, 1000), quantile(&medians, 975, 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(rounds: &[f64], bound: Bound) -> Figure {
        Figure {
            bench: "sockets",
            case: "10 services".to_owned(),
            metric: "connections",
            unit: "us",
            value: 30.0,
            versus: "direct",
            rounds: rounds.to_vec(),
            bound,
        }
    }

    #[test]
    fn the_median_and_quantiles_are_those_of_the_sorted_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 99, 100), 100.0);
        assert_eq!(quantile(&hundred, 1, 100), 2.0);
    }

    #[test]
    fn the_interval_holds_the_median_and_is_the_same_each_time() {
        let rounds = [0.95, 0.99, 0.97, 0.98, 0.96, 1.0, 0.94];
        let (low, high) = bootstrap(&rounds);
        assert!(low < 0.97 && 0.97 < high, "{low} {high}");
        assert_eq!(bootstrap(&rounds), (low, high));
    }

    #[test]
    fn a_bound_holds_if_the_interval_reaches_it() {
        assert!(figure(&[0.96; 15], Bound::AtLeast(0.96)).holds());
        assert!(!figure(&[0.96; 15], Bound::AtLeast(0.97)).holds());
        assert!(figure(&[4.9; 15], Bound::Below(5.0)).holds());
        assert!(!figure(&[5.0; 15], Bound::Below(5.0)).holds());
    }

    #[test]
    fn json_names_what_it_was_measured_beside() {
        let json = figure(&[0.96; 15], Bound::None).json();
        assert_eq!((json["versus"].as_str(), json["rounds"].as_u64()), (Some("direct"), Some(15)));
        assert_eq!(json["ratio"], 0.96);
    }
}
