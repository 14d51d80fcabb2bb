//! Lists that end where no honest one goes on.
//!
//! In JSON an element may take two bytes, in memory it takes many times that: what bounds the
//! length of a file does not bound what is made of it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A list that is an error, as it is read, where it has more than `MOST` elements.
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
