//! An image's slot in an index: one for each platform.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::options::IndexItem;
use crate::error::Error;
use crate::image::Platform;
use crate::source::Location;

/// The platforms of an index, each with the number of its image.
pub type Platforms = Mutex<HashMap<Platform, usize>>;

/// An image's slot in an index.
pub struct IndexSlot<'a> {
    pub number: usize,
    pub image: &'a IndexItem,
    pub platforms: &'a Platforms,
}

impl IndexSlot<'_> {
    /// Takes the slot of a platform, which must be the expected one and not taken by another image.
    pub fn take(&self, platform: &Platform) -> Result<(), Error> {
        if let Some(expected) = &self.image.platform {
            check_platform(&self.image.image, platform, expected)?;
        }
        match *self.platforms.lock().entry(platform.clone()).or_insert(self.number) {
            first if first == self.number => Ok(()),
            first => Err(Error::Usage(format!(
                "two images of the index are for {platform}: the {} and the {}; an index has one for \
                 each platform",
                ordinal(first.min(self.number) + 1),
                ordinal(first.max(self.number) + 1),
            ))),
        }
    }
}

/// An error if an image is not for the expected platform.
pub fn check_platform(
    image: &Location,
    platform: &Platform,
    expected: &Platform,
) -> Result<(), Error> {
    match expected.matches(platform) {
        true => Ok(()),
        false => Err(Error::Usage(format!(
            "{image} is an image for {platform}, not for {expected}; was the wrong image given?"
        ))),
    }
}

fn ordinal(number: usize) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}
