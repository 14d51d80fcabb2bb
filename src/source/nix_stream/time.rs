//! Points in time as Python's `datetime` reads and writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A point in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PythonTime {
    /// What `isoformat` gives.
    pub iso: String,
    /// Seconds since 1970, whole ones.
    pub seconds: i64,
}

/// Reads `2024-02-29T12:30:00+01:00`, the form that `date -Iseconds` writes. `None` for any other
/// form. A time without a zone, for example, depends on the zone of the machine.
pub fn parse(text: &str) -> Option<PythonTime> {
    let (local, zone) = text.split_at_checked(19)?;
    let ahead = match zone.as_bytes() {
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let digit = |byte: &u8| byte.is_ascii_digit().then(|| i64::from(byte - b'0'));
            let hours = 10 * digit(h1)? + digit(h2)?;
            let minutes = 10 * digit(m1)? + digit(m2)?;
            if hours > 23 || minutes > 59 {
                return None;
            }
            (60 * hours + minutes) * if *sign == b'+' { 60 } else { -60 }
        }
        _ => return None,
    };
    if local.as_bytes()[10] != b'T' {
        return None;
    }
    let utc = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    // humantime accepts the second 60 of a leap second, but Python does not.
    if humantime::format_rfc3339_seconds(utc).to_string() != format!("{local}Z") {
        return None;
    }
    let seconds = i64::try_from(utc.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()? - ahead;
    let zone = if ahead == 0 { "+00:00" } else { zone };
    Some(PythonTime { iso: format!("{local}{zone}"), seconds })
}

/// What `datetime.now(tz=timezone.utc)` is at that time.
pub fn now(time: SystemTime) -> PythonTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = UNIX_EPOCH + Duration::from_micros(since.as_micros() as u64);
    // Python leaves out a fraction that is zero.
    let text = match since.subsec_micros() {
        0 => humantime::format_rfc3339_seconds(time).to_string(),
        _ => humantime::format_rfc3339_micros(time).to_string(),
    };
    let local = text.trim_end_matches('Z');
    PythonTime { iso: format!("{local}+00:00"), seconds: since.as_secs() as i64 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::python;
    use super::*;

    #[test]
    fn times_are_those_of_python() {
        let times = [
            "1970-01-01T00:00:01+00:00",
            "1970-01-01T00:00:00-00:00",
            "1970-01-01T00:00:00+14:00",
            "2024-02-29T12:30:59-05:30",
            "2038-01-19T03:14:08+01:00",
            "9999-12-31T23:59:59+00:00",
        ];
        let theirs = python(
            "import sys, datetime
for line in sys.stdin:
    time = datetime.datetime.fromisoformat(line.strip())
    print(time.isoformat(), int(time.timestamp()))
",
            times.join("\n").as_bytes(),
        );
        let ours = times.map(|text| {
            let time = parse(text).unwrap();
            format!("{} {}\n", time.iso, time.seconds)
        });
        assert_eq!(String::from_utf8(theirs).unwrap(), ours.concat());
    }

    #[test]
    fn other_forms_of_time_are_left_to_python() {
        for text in [
            "",
            "now",
            "1970-01-01",
            "1970-01-01T00:00:01",
            "1970-01-01T00:00:01Z",
            "1970-01-01 00:00:01+00:00",
            "1970-01-01T00:00:01.5+00:00",
            "1970-01-01T00:00:60+00:00",
            "1970-02-30T00:00:00+00:00",
            "1969-12-31T23:59:59+00:00",
            "1970-01-01T00:00:01+0000",
            "1970-01-01T00:00:01+24:00",
            "1970-01-01T00:00:0é+00:00",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn now_has_microseconds_unless_they_are_zero() {
        let at = |nanos| now(UNIX_EPOCH + Duration::from_nanos(nanos));
        let iso = |text: &str, seconds| PythonTime { iso: text.into(), seconds };
        assert_eq!(at(1_000_000_999), iso("1970-01-01T00:00:01+00:00", 1));
        assert_eq!(at(1_999_999_999), iso("1970-01-01T00:00:01.999999+00:00", 1));
    }
}
