//! JSON as Python's `json` module reads and writes it.
//!
//! Input: JSON. The order of an object's keys is kept, and of equal keys the last one is used.
//! Output: exactly what `json.dumps(value, indent=4)` returns.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::image::MAX_CONFIG_BYTES;

/// The most values that a file may hold. A value may take only two bytes in JSON, but it takes some
/// forty in memory.
const MAX_VALUES: usize = 400_000;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Natural(u64),
    Negative(i64),
    /// A fraction, an exponent or more digits than 64 bits hold: Python writes these its own way.
    Other,
    Text(String),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

/// Why a value cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnwritableJson {
    /// It holds a number that Python writes its own way.
    OtherNumber,
    /// It would have this length, which is over the limit for configs.
    TooLong(u64),
}

impl Value {
    /// Reads JSON.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let left = Cell::new(MAX_VALUES);
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let value = Any { left: &left }.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// The value under `key`, if this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// `json.dumps(self, indent=4)`.
    pub fn dumps(&self) -> Result<String, UnwritableJson> {
        let mut out = Out::default();
        self.write(&mut out, 1)?;
        if out.length > MAX_CONFIG_BYTES {
            return Err(UnwritableJson::TooLong(out.length));
        }
        Ok(out.text)
    }

    fn write(&self, out: &mut Out, depth: usize) -> Result<(), UnwritableJson> {
        match self {
            Self::Null => out.push("null"),
            Self::Bool(true) => out.push("true"),
            Self::Bool(false) => out.push("false"),
            Self::Natural(number) => out.push(&number.to_string()),
            Self::Negative(number) => out.push(&number.to_string()),
            Self::Other => return Err(UnwritableJson::OtherNumber),
            Self::Text(text) => out.push_text(text),
            Self::List(values) => {
                out.push_all(depth, ("[", "]"), values, |out, value| value.write(out, depth + 1))?;
            }
            Self::Map(entries) => {
                out.push_all(depth, ("{", "}"), entries, |out, (key, value)| {
                    out.push_text(key);
                    out.push(": ");
                    value.write(out, depth + 1)
                })?;
            }
        }
        Ok(())
    }
}

/// The output. Indentation can make a short input very long, so beyond the limit only the length is
/// counted.
#[derive(Default)]
struct Out {
    text: String,
    length: u64,
}

impl Out {
    fn push(&mut self, text: &str) {
        self.length += text.len() as u64;
        if self.length <= MAX_CONFIG_BYTES {
            self.text.push_str(text);
        }
    }

    fn push_all<T>(
        &mut self,
        depth: usize,
        (open, close): (&str, &str),
        items: &[T],
        write: impl Fn(&mut Self, &T) -> Result<(), UnwritableJson>,
    ) -> Result<(), UnwritableJson> {
        self.push(open);
        for (index, item) in items.iter().enumerate() {
            self.push(if index > 0 { "," } else { "" });
            self.push_line(depth);
            write(self, item)?;
        }
        if !items.is_empty() {
            self.push_line(depth - 1);
        }
        self.push(close);
        Ok(())
    }

    fn push_line(&mut self, depth: usize) {
        self.push("\n");
        for _ in 0..depth {
            self.push("    ");
        }
    }

    /// Writes a string. All characters except printable ASCII are escaped.
    fn push_text(&mut self, text: &str) {
        self.push("\"");
        for character in text.chars() {
            match character {
                '"' => self.push("\\\""),
                '\\' => self.push("\\\\"),
                '\n' => self.push("\\n"),
                '\r' => self.push("\\r"),
                '\t' => self.push("\\t"),
                '\u{8}' => self.push("\\b"),
                '\u{c}' => self.push("\\f"),
                ' '..='~' => self.push(character.encode_utf8(&mut [0; 4])),
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        self.push(&format!("\\u{unit:04x}"));
                    }
                }
            }
        }
        self.push("\"");
    }
}

/// Reads any value. `left` is the number of values that may still follow.
#[derive(Clone, Copy)]
struct Any<'a> {
    left: &'a Cell<usize>,
}

impl<'de> DeserializeSeed<'de> for Any<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(D::Error::custom(format_args!("more than {MAX_VALUES} values")));
        };
        self.left.set(left);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Natural(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Negative(value))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Other)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element_seed(self)? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
            // A key that comes again keeps its first place and gets the last value.
            match places.get(&key) {
                Some(&place) => entries[place].1 = value,
                None => {
                    places.insert(key.clone(), entries.len());
                    entries.push((key, value));
                }
            }
        }
        Ok(Value::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::python;
    use super::*;

    /// A Python program that reads JSON and writes it again.
    const DUMPS: &str = "import json, sys
sys.stdout.write(json.dumps(json.load(sys.stdin), indent=4))";

    #[test]
    fn json_is_written_as_python_writes_it() {
        for json in [
            "null",
            "[]",
            "{}",
            r#"{"b": {}, "a": [], "c": [[], {"x": null}], "b": [1, -1, 18446744073709551615]}"#,
            r#"[true, false, null, 0, -9223372036854775808, "plain"]"#,
            r#"{"": "a\"b\\c\/\n\r\t\b\f\u0000\u001f\u007f\u0080é€😀\ud83d\ude00\u2028"}"#,
            r#"{"a": {"x": 1, "y": 2}, "b": 3, "a": {"y": 4}}"#,
        ] {
            let ours = Value::parse(json.as_bytes()).unwrap().dumps().unwrap();
            assert_eq!(ours.as_bytes(), python(DUMPS, json.as_bytes()), "{json}");
        }
    }

    #[test]
    fn numbers_that_python_writes_otherwise_are_told() {
        for json in ["1.0", "[1e3]", r#"{"a": -0}"#, "18446744073709551616"] {
            let value = Value::parse(json.as_bytes()).unwrap();
            assert_eq!(value.dumps(), Err(UnwritableJson::OtherNumber), "{json}");
        }
    }

    #[test]
    fn what_is_no_json_or_too_much_is_an_error() {
        for json in ["", "{", "[1,]", "NaN", "1 2", r#""\ud800""#, "{1: 2}"] {
            assert!(Value::parse(json.as_bytes()).is_err(), "{json}");
        }
        // This input is short, but with indentation it becomes very long.
        let wide = format!("{}{}0{}", "[".repeat(100), "0,".repeat(100_000), "]".repeat(100));
        let wide = Value::parse(wide.as_bytes()).unwrap().dumps();
        assert!(matches!(wide, Err(UnwritableJson::TooLong(length)) if length > 40_000_000));
        let deep = "[".repeat(100_000);
        assert!(Value::parse(deep.as_bytes()).is_err());
        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        let error = Value::parse(many.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("more than 400000 values"), "{error}");
    }
}
