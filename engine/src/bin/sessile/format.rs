//! Numbers and times for people: three digits and a unit, whole seconds.

pub(crate) use sessile_harness::format::{bytes, count, micros, rate, ratio};

use sessile::Timestamp;

/// Writes a time in whole seconds.
pub(crate) fn moment(at: Timestamp) -> String {
    const MICROS: i64 = 1_000_000;
    let text = Timestamp::from_micros(at.as_micros().div_euclid(MICROS) * MICROS).to_string();
    text.replacen(".000000", "", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_whole_seconds() {
        assert_eq!(moment(Timestamp::from_micros(1_999_999)), "1970-01-01T00:00:01Z");
    }
}
