//! An image's slot in an index: one for each platform.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::options::IndexItem;
use crate::error::Error;
use crate::image::Platform;

/// The platforms of an index, and the number of the image that has each.
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
        if let Some(expected) = &self.image.platform
            && !expected.matches(platform)
        {
            return Err(Error::Usage(format!(
                "{} is an image for {platform}, not for {expected}; was the wrong image given?",
                self.image.image
            )));
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
