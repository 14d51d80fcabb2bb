//! Lists of a limited length.
//!
//! An element takes as little as two bytes in JSON, but many times more in memory. So a limit on
//! the length of a file does not limit the memory that its content takes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A list of at most `MOST` elements. Reading a longer one is an error.
pub struct Bounded<T, const MOST: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Bounded<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Elements<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Elements<T, MOST> {
            type Value = Bounded<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a sequence")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut list = Vec::new();
                while let Some(element) = seq.next_element()? {
                    if list.len() == MOST {
                        return Err(A::Error::custom(format_args!(
                            "a list has more than {MOST} elements"
                        )));
                    }
                    list.push(element);
                }
                Ok(Bounded(list))
            }
        }

        deserializer.deserialize_seq(Elements(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_be_as_long_as_its_bound_and_no_longer() {
        let read = |text| serde_json::from_str::<Bounded<u8, 3>>(text);
        assert_eq!(read("[]").ok().unwrap().0.len(), 0);
        assert_eq!(read("[1,2,3]").ok().unwrap().0, [1, 2, 3]);
        let error = read("[1,2,3,4]").err().unwrap().to_string();
        assert!(error.contains("a list has more than 3 elements"), "{error}");
        assert!(read("{}").is_err());
    }
}
