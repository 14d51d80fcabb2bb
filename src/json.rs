//! JSON as Go's `encoding/json` reads it, and with it docker, skopeo and crane.
//!
//! Comes in: bytes. Goes out: any type that derives `Deserialize`. Other than serde_json, and like
//! Go:
//! - the name of a field counts in any case;
//! - the last of duplicate fields wins, and of duplicate objects each field does;
//! - `null` is the empty value of any type: no text, 0, false, an empty list, absent;
//! - a byte that is not UTF-8, or a surrogate without its other half, becomes U+FFFD;
//! - what is nested deeply may be skipped at any depth.
//!
//! serde_json checks the syntax and reads the single values. Only the fields that a type has are
//! kept in memory, as places in the text. An error names the field, and says what was expected.

mod error;
mod text;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::value::RawValue;

pub use error::Error;

/// How deep a value may be nested where it is kept; it takes some stack for each level.
const MAX_DEPTH: usize = 100;

/// How many times an object may come under one name; all are kept to be merged.
const MAX_DUPLICATES: usize = 100;

/// Reads a value.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = text::repaired(bytes);
    serde_json::from_str::<IgnoredAny>(&text).map_err(|error| Error::syntax(&error))?;
    T::deserialize(Json { last: text.trim_ascii(), earlier: Vec::new(), depth: 0 })
}

/// One value in a text whose syntax was checked.
struct Json<'de> {
    last: &'de str,
    /// The objects that came under the same name before.
    earlier: Vec<&'de str>,
    depth: usize,
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    Null,
    Bool,
    Number,
    Text,
    List,
    Object,
}

impl Type {
    fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'{') => Self::Object,
            Some(b'[') => Self::List,
            Some(b'"') => Self::Text,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') => Self::Null,
            _ => Self::Number,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a string",
            Self::List => "a list",
            Self::Object => "an object",
        }
    }
}

impl<'de> Json<'de> {
    /// A value within this one.
    fn inner(&self, last: &'de str) -> Self {
        Json { last, earlier: Vec::new(), depth: self.depth + 1 }
    }

    fn kind(&self) -> Type {
        Type::of(self.last)
    }

    fn expect(&self, expected: Type) -> Result<(), Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::new(format!("is nested deeper than {MAX_DEPTH} levels")));
        }
        match self.kind() == expected {
            true => Ok(()),
            false => Err(self.is_not(expected.name())),
        }
    }

    fn is_not(&self, expected: &str) -> Error {
        Error::new(format!("must be {expected}, and is {}", self.kind().name()))
    }

    fn is_no_such_number(&self, expected: &str) -> Error {
        match self.kind() {
            Type::Number if self.last.len() < 40 => {
                Error::new(format!("must be {expected}, and is {}", self.last))
            }
            _ => self.is_not(expected),
        }
    }

    /// A string, a number or a bool, as serde_json reads it; the empty one for `null`.
    fn scalar<T: DeserializeOwned + Default>(&self) -> Option<T> {
        match self.kind() {
            Type::Null => Some(T::default()),
            _ => serde_json::from_str(self.last).ok(),
        }
    }

    fn text(&self) -> Result<String, Error> {
        self.scalar().ok_or_else(|| self.is_not(Type::Text.name()))
    }

    /// The fields of these names, each with the last of its values.
    fn fields(&self, names: &'static [&'static str]) -> Result<Vec<Field<'de>>, Error> {
        let mut fields: Vec<Field<'de>> = Vec::new();
        for object in self.earlier.iter().chain([&self.last]) {
            if Type::of(object) == Type::Null {
                continue;
            }
            let mut members = Members { names, fields: &mut fields, result: Ok(()) };
            let read = serde_json::Deserializer::from_str(object).deserialize_map(&mut members);
            members.result.and(read.map_err(Error::unread))?;
        }
        Ok(fields)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let expected = || format!("a whole number from {} to {}", $number::MIN, $number::MAX);
            visitor.$visit(self.scalar().ok_or_else(|| self.is_no_such_number(&expected()))?)
        })*
    };
}

impl<'de> Deserializer<'de> for Json<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Type::Null => visitor.visit_unit(),
            Type::Bool => self.deserialize_bool(visitor),
            Type::Text => self.deserialize_str(visitor),
            Type::List => self.deserialize_seq(visitor),
            Type::Object => self.deserialize_map(visitor),
            Type::Number => serde_json::Deserializer::from_str(self.last)
                .deserialize_any(visitor)
                .map_err(Error::unread),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.scalar().ok_or_else(|| self.is_not(Type::Bool.name()))?)
    }

    numbers! {
        deserialize_i8 visit_i8 i8
        deserialize_i16 visit_i16 i16
        deserialize_i32 visit_i32 i32
        deserialize_i64 visit_i64 i64
        deserialize_u8 visit_u8 u8
        deserialize_u16 visit_u16 u16
        deserialize_u32 visit_u32 u32
        deserialize_u64 visit_u64 u64
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.kind() {
            Type::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let json = match self.kind() {
            Type::Null => "[]",
            _ => self.last,
        };
        let list = Json { last: json, ..self };
        list.expect(Type::List)?;
        let mut result = Err(Error::new("is not a list".to_owned()));
        // An error of serde_json's is one of `result`, or follows from it.
        let _ = serde_json::Deserializer::from_str(json).deserialize_seq(ElementsVisitor {
            visitor,
            of: &list,
            result: &mut result,
        });
        result
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let json = match self.kind() {
            Type::Null => "{}",
            _ => self.last,
        };
        let map = Json { last: json, ..self };
        map.expect(Type::Object)?;
        let mut result = Err(Error::new("is not an object".to_owned()));
        let _ = serde_json::Deserializer::from_str(json).deserialize_map(ElementsVisitor {
            visitor,
            of: &map,
            result: &mut result,
        });
        result
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.kind() != Type::Null {
            self.expect(Type::Object)?;
        }
        let fields = self.fields(names)?.into_iter();
        visitor.visit_map(Fields { fields, value: None, depth: self.depth + 1 })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.text()?.into_deserializer())
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct
    }
}

/// A field that a type has, with its value.
struct Field<'de> {
    name: &'static str,
    last: &'de str,
    earlier: Vec<&'de str>,
}

/// Sorts the members of an object by field; forgets the others.
struct Members<'a, 'de> {
    names: &'static [&'static str],
    fields: &'a mut Vec<Field<'de>>,
    result: Result<(), Error>,
}

impl<'de> Members<'_, 'de> {
    fn insert(&mut self, key: &str, value: &'de str) -> Result<(), Error> {
        let exact = self.names.iter().find(|name| **name == key);
        let Some(name) = exact.or_else(|| self.names.iter().find(|name| is_same(name, key))) else {
            return Ok(());
        };
        let kind = Type::of(value);
        let Some(field) = self.fields.iter_mut().find(|field| field.name == *name) else {
            self.fields.push(Field { name, last: value, earlier: Vec::new() });
            return Ok(());
        };
        match (Type::of(field.last), kind) {
            (Type::Object, Type::Object) if field.earlier.len() == MAX_DUPLICATES => {
                let fault = format!("is there more than {MAX_DUPLICATES} times");
                return Err(Error::new(fault).within_field(name));
            }
            (Type::Object, Type::Object) => field.earlier.push(field.last),
            // It empties a list, and leaves other values as they are.
            (Type::List, Type::Null) => {}
            (_, Type::Null) => return Ok(()),
            _ => field.earlier.clear(),
        }
        field.last = value;
        Ok(())
    }
}

/// Whether Go takes a key for the field of this name: the two letters beside ASCII are those that
/// Unicode folds into it.
fn is_same(name: &str, key: &str) -> bool {
    let folded = |text: &str| -> String {
        let fold = |character| match character {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        };
        text.chars().map(fold).collect()
    };
    // No letter that is folded takes more than three bytes.
    key.len() <= 3 * name.len() && folded(name) == folded(key)
}

impl<'de> Visitor<'de> for &mut Members<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let value: &'de RawValue = map.next_value()?;
            if self.result.is_ok() {
                self.result = self.insert(&key, value.get());
            }
        }
        Ok(())
    }
}

/// The fields of an object, handed to the type that has them.
struct Fields<'de> {
    fields: std::vec::IntoIter<Field<'de>>,
    value: Option<Field<'de>>,
    depth: usize,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        self.value = self.fields.next();
        let name = self.value.as_ref().map(|field| field.name);
        name.map(|name| seed.deserialize(BorrowedStrDeserializer::new(name))).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some(Field { name, last, earlier }) = self.value.take() else {
            return Err(Error::new("a value was asked for before its name".to_owned()));
        };
        let value = Json { last, earlier, depth: self.depth };
        seed.deserialize(value).map_err(|error| error.within_field(name))
    }
}

/// Hands the elements of a list, or of an object whose keys are any, to a visitor.
struct ElementsVisitor<'a, 'de, V: Visitor<'de>> {
    visitor: V,
    of: &'a Json<'de>,
    result: &'a mut Result<V::Value, Error>,
}

impl<'de, V: Visitor<'de>> Visitor<'de> for ElementsVisitor<'_, 'de, V> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        *self.result = self.visitor.visit_seq(List { access, index: 0, of: self.of });
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<(), A::Error> {
        *self.result = self.visitor.visit_map(Map { access, key: String::new(), of: self.of });
        Ok(())
    }
}

struct List<'a, 'de, A> {
    access: A,
    index: usize,
    of: &'a Json<'de>,
}

impl<'de, A> SeqAccess<'de> for List<'_, 'de, A>
where
    A: SeqAccess<'de>,
{
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let element = self.access.next_element::<&'de RawValue>();
        let Some(json) = element.map_err(Error::unread)? else {
            return Ok(None);
        };
        let index = self.index;
        self.index += 1;
        let value = seed.deserialize(self.of.inner(json.get()));
        value.map(Some).map_err(|error| error.within_list(index))
    }
}

struct Map<'a, 'de, A> {
    access: A,
    key: String,
    of: &'a Json<'de>,
}

impl<'de, A> MapAccess<'de> for Map<'_, 'de, A>
where
    A: MapAccess<'de>,
{
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        match self.access.next_key::<String>().map_err(Error::unread)? {
            Some(key) => {
                self.key.clone_from(&key);
                seed.deserialize(key.into_deserializer()).map(Some)
            }
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let json: &'de RawValue = self.access.next_value().map_err(Error::unread)?;
        let value = seed.deserialize(self.of.inner(json.get()));
        value.map_err(|error| error.within_key(&self.key))
    }
}

#[cfg(test)]
mod tests;
