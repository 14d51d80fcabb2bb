//! The command line as clap reads it. Each option is checked by itself here; how options fit
//! together is checked in [`super::command`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser, value_parser};
use oci_client::Reference;

use super::help::{DETAILS, INSPECT_DETAILS};
use super::name;
use super::options::{RegistryArgs, ReuseArgs, SelectionArgs, VerbosityArgs};
use crate::image::{Compression, Format};
use crate::push::DEFAULT_JOBS;

/// The forms of the command line.
const FORMS: &str = "pushimg [OPTIONS] <IMAGE> [DESTINATION]
       pushimg [OPTIONS] <IMAGE>=<DESTINATION>...
       pushimg [OPTIONS] --index <DESTINATION> <[PLATFORM=]IMAGE>...
       pushimg inspect [OPTIONS] <IMAGE>";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pushimg",
    version,
    about = "Push a locally built container image to a registry, without Docker:\nonly the layers that the registry lacks are sent",
    override_usage = FORMS,
    after_long_help = DETAILS,
    max_term_width = 100,
    disable_help_flag = true,
    disable_version_flag = true,
    disable_help_subcommand = true,
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Subcommand>,

    #[command(flatten)]
    pub push: PushArgs,

    /// Print the version
    #[arg(short = 'V', long = "version", action = ArgAction::Version, help_heading = "Output")]
    version: Option<bool>,

    /// Print this; --help adds examples, exit codes and environment variables
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The commands besides a push.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Show what is in an image, and what a push of it would send
    Inspect(Box<InspectArgs>),
}

/// A push.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// A file, a folder, a symlink such as ./result, or - for standard input; PATH:NAME or
    /// PATH@DIGEST is one of several images in it
    pub image: Option<OsString>,

    /// host[:port]/repository[:tag]; left out, the name that the image itself carries
    pub destination: Option<OsString>,

    #[arg(hide = true)]
    pub more: Vec<OsString>,

    #[command(flatten)]
    pub image_args: ImageArgs,

    #[command(flatten)]
    pub selection: SelectionArgs,

    #[command(flatten)]
    pub several: SeveralArgs,

    #[command(flatten)]
    pub reuse: ReuseArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

/// A look at an image.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg inspect [OPTIONS] <IMAGE>",
    after_long_help = INSPECT_DETAILS,
    disable_help_flag = true
)]
pub struct InspectArgs {
    /// A file, a folder, a symlink such as ./result, or - for standard input; PATH:NAME or
    /// PATH@DIGEST is one of several images in it
    pub image: OsString,

    #[command(flatten)]
    pub selection: SelectionArgs,

    /// Tell which layers the registry has already, and what a push to this name would send
    #[arg(long, value_name = "REF", value_parser = name::destination, help_heading = "Image")]
    pub against: Option<Reference>,

    #[command(flatten)]
    pub reuse: ReuseArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    /// Print it as JSON, with nothing left out
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,

    /// Print this; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// What is pushed, and as what.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Image")]
pub struct ImageArgs {
    /// One more tag in the same repository; may be repeated
    #[arg(short, long = "tag", value_name = "TAG", value_parser = name::tag)]
    pub tags: Vec<String>,

    /// The manifest's format; auto: Docker's, but OCI's for a stream script and where zstd is used
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = formats())]
    pub format: ChosenFormat,

    /// How new layers are compressed
    #[arg(long, value_name = "METHOD", default_value = "gzip", value_parser = compressions())]
    pub compression: Compression,

    /// 1 to 12 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub compression_level: Option<i32>,

    /// How many layers are uploaded at the same time, 1 to 64
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_JOBS as u8, value_parser = value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// Find out everything, say what would be uploaded, upload nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Ways to push more than one image.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Several images")]
pub struct SeveralArgs {
    /// Push the images that this JSON file lists; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["all", "index"])]
    pub file: Option<PathBuf>,

    /// Push every image of an archive, each under its own name
    #[arg(long, conflicts_with = "index")]
    pub all: bool,

    /// Push images for several platforms, and an index of this name over them
    #[arg(long, value_name = "DESTINATION", value_parser = name::destination, conflicts_with = "platform")]
    pub index: Option<Reference>,

    /// Give up the other images when one has failed
    #[arg(long, conflicts_with = "index")]
    pub fail_fast: bool,
}

/// What is printed.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print a report of every layer as JSON
    #[arg(long)]
    pub json: bool,

    /// Write the manifest's digest to this file, once it is pushed
    #[arg(long, value_name = "PATH", conflicts_with_all = ["dry_run", "file", "all"])]
    pub digest_file: Option<PathBuf>,
}

/// `--format`; `None` for `auto`. The alias keeps clap from reading `Option` as "may be left out".
type ChosenFormat = Option<Format>;

fn formats() -> impl TypedValueParser<Value = ChosenFormat> {
    PossibleValuesParser::new(["auto", "docker", "oci"]).map(|text| match text.as_str() {
        "docker" => Some(Format::Docker),
        "oci" => Some(Format::Oci),
        _ => None,
    })
}

fn compressions() -> impl TypedValueParser<Value = Compression> {
    PossibleValuesParser::new(["gzip", "zstd", "none"]).map(|text| match text.as_str() {
        "zstd" => Compression::Zstd,
        "none" => Compression::None,
        _ => Compression::Gzip,
    })
}
