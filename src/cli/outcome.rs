//! The results of several images, for the summary, the JSON and the exit code.

use super::exit::Code;
use crate::Error;
use crate::push::Item;
use crate::report::Report;

/// The result of one of several images.
#[derive(Debug)]
pub enum ImageOutcome {
    /// It was pushed, or would be with a real push.
    Pushed(Box<Report>),
    /// It failed.
    Failed {
        /// Its destination, or the image's location if the destination is not known.
        name: String,
        /// Why.
        error: Error,
    },
}

impl ImageOutcome {
    /// The result of an item.
    pub fn of(item: &Item, result: Result<Report, Error>) -> Self {
        match result {
            Ok(report) => Self::Pushed(Box::new(report)),
            Err(error) => {
                let destination = item.destination.as_ref().map(|name| match &item.host {
                    Some(host) => host.reference(name, name.tag().unwrap_or_default()),
                    None => name.to_string(),
                });
                let name = destination.unwrap_or_else(|| item.image.to_string());
                // If the destination has no tag, remove the colon.
                let name = name.trim_end_matches(':').to_owned();
                Self::Failed { name, error }
            }
        }
    }

    /// The report of an image that was pushed.
    pub fn report(&self) -> Option<&Report> {
        match self {
            Self::Pushed(report) => Some(report),
            Self::Failed { .. } => None,
        }
    }
}

/// The bytes that were sent for the images that were pushed.
pub fn bytes_sent(outcomes: &[ImageOutcome]) -> u64 {
    outcomes.iter().filter_map(ImageOutcome::report).map(|report| report.bytes_sent).sum()
}

/// The exit code of the first image that failed, in the order of the command line.
pub fn exit_code(outcomes: &[ImageOutcome]) -> Code {
    let failure = outcomes.iter().find_map(|outcome| match outcome {
        ImageOutcome::Pushed(_) => None,
        ImageOutcome::Failed { error, .. } => Some(error.exit_code()),
    });
    failure.unwrap_or(Code::Pushed)
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::report;
    use super::*;
    use crate::image::parse_reference;
    use crate::source::{Location, Selection};

    #[test]
    fn the_first_failure_in_the_order_given_tells_how_it_ends() {
        let pushed = || ImageOutcome::Pushed(Box::new(report(vec![])));
        let item = Item {
            image: Location::Stdin,
            selection: Selection::default(),
            destination: None,
            tags: vec![],
            host: None,
        };
        let failed = |error| ImageOutcome::of(&item, Err(error));
        let usage = || failed(Error::Usage(String::new()));
        let other = || failed(Error::Failed(String::new()));
        assert_eq!(exit_code(&[pushed(), pushed()]), Code::Pushed);
        assert_eq!(exit_code(&[pushed(), other(), usage()]), Code::Failed);
        assert_eq!(exit_code(&[usage(), pushed(), other()]), Code::Usage);
        assert_eq!(bytes_sent(&[pushed(), usage(), pushed()]), 2_400_000);
    }

    #[test]
    fn a_failure_names_where_the_image_was_to_go_or_the_image() {
        let name = |destination: &str| {
            let item = Item {
                image: Location::Path("result".into()),
                selection: Selection::default(),
                destination: parse_reference(destination),
                tags: vec![],
                host: None,
            };
            match ImageOutcome::of(&item, Err(Error::Failed(String::new()))) {
                ImageOutcome::Failed { name, .. } => name,
                ImageOutcome::Pushed(_) => String::new(),
            }
        };
        assert_eq!(name("r.io/app:v1"), "r.io/app:v1");
        assert_eq!(name(""), "result");
    }
}
