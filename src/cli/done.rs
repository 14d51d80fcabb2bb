//! The results of commands, and how they are printed.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::exit::Code;
use super::outcome::{self, ImageOutcome};
use super::output::{self, Output, markdown};
use super::{digest_file, result};
use crate::inspect::{Comparison, Inspection};
use crate::report::Report;
use crate::tag::Tagged;

/// The result of a command.
pub enum Done {
    /// One image, or an index, was pushed.
    One(Box<Report>),
    /// The results of several images, some of which may have failed, and the total time.
    Several(Vec<ImageOutcome>, Duration),
    /// An image was inspected.
    Inspected(Inspection),
    /// Two images were compared.
    Compared(Comparison),
    /// An image got tags.
    Tagged(Tagged),
    /// A text to be printed.
    Text(Vec<u8>),
}

impl Done {
    /// Prints the summary on standard error and the result on standard output, and returns the exit
    /// code.
    pub fn print(&self, json: bool, digest_file: Option<&Path>, output: &Output) -> Code {
        let stdout = &mut io::stdout().lock();
        let (code, written) = match self {
            Done::One(report) => {
                output.report(report);
                let written = digest_file.map_or(Ok(()), |path| {
                    digest_file::write_digest(path, &report.digest)
                        .map_err(|error| NotWritten::Pushed("the digest file", error))
                });
                let printed = result::print_one(report, json, stdout).map_err(NotWritten::pushed);
                (Code::Pushed, written.and(printed))
            }
            Done::Several(outcomes, took) => {
                output.report_all(outcomes, *took);
                let printed = result::print_all(outcomes, *took, json, stdout);
                (outcome::exit_code(outcomes), printed.map_err(NotWritten::pushed))
            }
            Done::Inspected(inspection) => {
                let printed = if json {
                    result::print_json(inspection, stdout)
                } else {
                    let columns = output::inspect::columns();
                    result::print(output::inspect::text(inspection, columns).as_bytes(), stdout)
                };
                (Code::Pushed, printed.map_err(NotWritten::Printed))
            }
            Done::Compared(comparison) => {
                let printed = if json {
                    result::print_json(comparison, stdout)
                } else {
                    let columns = output::inspect::columns();
                    result::print(output::diff::text(comparison, columns).as_bytes(), stdout)
                };
                (Code::Pushed, printed.map_err(NotWritten::Printed))
            }
            Done::Tagged(tagged) => {
                output.tagged(tagged);
                let printed = if json {
                    result::print_json(tagged, stdout)
                } else {
                    result::print(format!("{}\n", tagged.pinned).as_bytes(), stdout)
                };
                (Code::Pushed, printed.map_err(NotWritten::Tagged))
            }
            Done::Text(text) => {
                (Code::Pushed, result::print(text, stdout).map_err(NotWritten::Printed))
            }
        };
        match written {
            Ok(()) => code,
            Err(error) => {
                output.fail(&error);
                if code == Code::Pushed { Code::Failed } else { code }
            }
        }
    }

    /// The text for `--summary`.
    pub fn markdown(&self) -> String {
        match self {
            Done::One(report) => markdown::pushed(report),
            Done::Several(outcomes, _) => {
                let parts = outcomes.iter().map(|outcome| match outcome {
                    ImageOutcome::Pushed(report) => markdown::pushed(report),
                    ImageOutcome::Failed { name, error } => markdown::failed(Some(name), error),
                });
                parts.collect()
            }
            Done::Inspected(_) | Done::Compared(_) | Done::Tagged(_) | Done::Text(_) => {
                String::new()
            }
        }
    }
}

/// Appends to the file of `--summary`, if one was given. Returns `code`, or another exit code if
/// the file cannot be written.
pub fn append_summary(path: Option<&Path>, text: &str, code: Code, output: &Output) -> Code {
    let Some(path) = path else { return code };
    match digest_file::append(path, text) {
        Err(error) if code == Code::Pushed => {
            output.fail(&NotWritten::Pushed("the summary", error));
            Code::Failed
        }
        _ => code,
    }
}

/// The command succeeded, but its result could not be written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error("the image is pushed, but {0} could not be written: {1}")]
    Pushed(&'static str, #[source] io::Error),
    #[error("the tags are set, but the result could not be written to standard output: {0}")]
    Tagged(#[source] io::Error),
    #[error("cannot write to standard output: {0}")]
    Printed(#[source] io::Error),
}

impl NotWritten {
    fn pushed(error: io::Error) -> Self {
        Self::Pushed("the result to standard output", error)
    }
}
