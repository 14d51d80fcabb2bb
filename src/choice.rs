//! Which of the images at a location is meant, and what to say if that is not clear.

use crate::error::Error;
use crate::image::{Reference, parse_reference};
use crate::source::{self, Image, Location, Selection};

/// Chooses the image for a destination: the only selected image, or the one whose name in the
/// archive is the destination.
pub fn pick(
    location: &Location,
    selection: &Selection,
    destination: &Reference,
    images: &[Image],
) -> Result<Image, Error> {
    let meant = selected(location, selection, images)?;
    let is_ours = |name: &String| parse_reference(name).as_ref() == Some(destination);
    let named = |image: &&&Image| image.names.iter().any(is_ours);
    match meant.as_slice() {
        [image] => Ok((*image).clone()),
        _ => match meant.iter().find(named) {
            Some(image) => Ok((*image).clone()),
            None => Err(several(location, &meant)),
        },
    }
}

/// The selected images; at least one.
pub fn selected<'a>(
    image: &Location,
    selection: &Selection,
    images: &'a [Image],
) -> Result<Vec<&'a Image>, Error> {
    let meant = selection.among(images);
    if meant.is_empty() {
        let listed = source::list(images);
        return Err(Error::Usage(format!(
            "{image} holds no image {selection}; it holds: {listed}"
        )));
    }
    Ok(meant)
}

/// The error if there are several images and none was chosen.
pub fn several(location: &Location, images: &[&Image]) -> Error {
    Error::Usage(format!(
        "{location} holds {} images: {}; choose one with --image NAME, or the beginning of its id, or \
         push each under its own name with --all",
        images.len(),
        source::list(images.iter().copied())
    ))
}
