//! Durations that people type: `90s`, `5m`, `1h 30m`.

use std::time::Duration;

use super::name::InvalidValue;

/// The longest duration that is accepted. Every system can compute a time that far ahead.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Parses a duration; `0` needs no unit.
pub fn duration(text: &str) -> Result<Duration, InvalidValue> {
    parse(text, "expected a number with its unit, such as 90s, 5m or 1h; 0 turns it off")
}

/// The shortest idle timeout. A round trip may take half of this time.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// Parses an idle timeout.
pub fn idle_timeout(text: &str) -> Result<Duration, InvalidValue> {
    let expected = "expected a number with its unit, such as 90s or 5m";
    match parse(text, expected)? {
        limit if limit < SHORTEST_IDLE => {
            Err(InvalidValue::new("that is too short; the shortest is 1s"))
        }
        limit => Ok(limit),
    }
}

fn parse(text: &str, expected: &str) -> Result<Duration, InvalidValue> {
    use humantime::DurationError;
    match humantime::parse_duration(text) {
        Ok(duration) if duration <= LONGEST => Ok(duration),
        Ok(_) | Err(DurationError::NumberOverflow) => {
            Err(InvalidValue::new("that is too long; the longest is 366days"))
        }
        Err(_) => Err(InvalidValue::new(expected)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        for wrong in ["", "5", "-1s", "soon"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(idle_timeout("0").is_err());
        assert!(idle_timeout("0s").is_err());
        assert!(idle_timeout("999ms").unwrap_err().to_string().contains("the shortest is 1s"));
        assert_eq!(idle_timeout("1s"), Ok(Duration::from_secs(1)));
    }

    #[test]
    fn a_duration_that_would_overflow_is_an_error_in_words() {
        assert_eq!(duration("366days"), Ok(LONGEST));
        let long = ["9999999999999999999s", "99999999999999999999s", "18446744073709551615y", "2y"];
        for text in long {
            for read in [duration, idle_timeout] {
                let said = read(text).unwrap_err().to_string();
                assert_eq!(said, "that is too long; the longest is 366days", "{text}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in "([0-9]{0,22} ?(ns|us|ms|s|m|h|d|days|w|M|y)? ?){0,3}|\\PC{0,20}") {
            if let Ok(duration) = duration(&text) {
                // Timers add up to five times a limit to the current time.
                prop_assert!(std::time::Instant::now().checked_add(duration * 5).is_some());
            }
        }
    }
}
