//! The command line as clap reads it. Each option is checked by itself here; how options fit
//! together is checked in [`super::command`].

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Parser, ValueHint, value_parser};
use clap_complete::Shell;

use super::options::{
    ConnectionArgs, RegistryArgs, ReuseArgs, SelectionArgs, SshArgs, VerbosityArgs,
};
use super::{help, name, platform};
use crate::image::{Compression, Format, Platform, Reference};
use crate::push::DEFAULT_JOBS;

/// The forms of the command line.
const FORMS: &str = "pushimg [OPTIONS] <IMAGE> [DESTINATION]
       pushimg [OPTIONS] <IMAGE>=<DESTINATION>...
       pushimg [OPTIONS] --index <DESTINATION> <[PLATFORM=]IMAGE>...
       pushimg inspect [OPTIONS] <IMAGE>
       pushimg diff [OPTIONS] <OLD> <NEW>
       pushimg tag [OPTIONS] <IMAGE> <TAG>...
       pushimg serve [OPTIONS] <IMAGE[=NAME]>...
       pushimg login [OPTIONS] <REGISTRY>
       pushimg logout [OPTIONS] <REGISTRY>";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "pushimg",
    version,
    about = "Push a locally built container image to a registry, without Docker",
    long_about = "Push a locally built container image to a registry, without Docker.\nOnly layers that the registry lacks are sent.",
    override_usage = FORMS,
    after_long_help = help::text(help::PUSH),
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

    /// Print the options; --help adds examples, exit codes and environment variables
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The commands besides a push.
#[derive(Debug, clap::Subcommand)]
pub enum Subcommand {
    /// Show what is in an image, and what a push of it would send
    Inspect(Box<InspectArgs>),

    /// Show which layers and packages are different in two images
    Diff(Box<DiffArgs>),

    /// Point tags to an image that is already in a registry
    Tag(Box<TagArgs>),

    /// Serve images to docker pull, podman pull and others, without a registry
    Serve(Box<ServeArgs>),

    /// Check a user and a password with a registry, and keep them
    Login(Box<LoginArgs>),

    /// Forget the login for a registry
    Logout(LogoutArgs),

    /// Print a script that completes the arguments of pushimg in a shell
    Completions(CompletionsArgs),

    /// Write the man pages into a folder
    Man(ManArgs),
}

/// The arguments of a push.
#[derive(Debug, clap::Args)]
pub struct PushArgs {
    /// File, folder, or symlink such as ./result; - is standard input; PATH:NAME or PATH@DIGEST
    /// chooses one of several images
    #[arg(value_hint = ValueHint::AnyPath)]
    pub image: Option<OsString>,

    /// host[:port]/repository[:tag], or host[:port]/repository@ for no tag; or
    /// ssh://[user@]host[:port]/name[:tag] of a machine; default: the name that the image carries
    pub destination: Option<OsString>,

    #[arg(hide = true, value_hint = ValueHint::AnyPath)]
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
    pub ssh: SshArgs,

    #[command(flatten)]
    pub output: OutputArgs,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,
}

/// The arguments of `pushimg inspect`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg inspect [OPTIONS] <IMAGE>",
    after_long_help = help::text(help::INSPECT),
    disable_help_flag = true
)]
pub struct InspectArgs {
    /// As for a push, or host/repository[:tag] of an image in a registry
    #[arg(value_hint = ValueHint::AnyPath)]
    pub image: OsString,

    #[command(flatten)]
    pub selection: SelectionArgs,

    /// Also show what a push to this name would send
    #[arg(long, value_name = "REF", value_parser = name::destination, help_heading = "Image")]
    pub against: Option<Reference>,

    #[command(flatten)]
    pub reuse: ReuseArgs,

    #[command(flatten)]
    pub registry: RegistryArgs,

    /// Print one JSON document, with all details
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The arguments of `pushimg diff`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg diff [OPTIONS] <OLD> <NEW>",
    after_long_help = help::text(help::DIFF),
    disable_help_flag = true
)]
pub struct DiffArgs {
    /// The old image: as for a push, or host/repository[:tag] of an image in a registry
    #[arg(value_hint = ValueHint::AnyPath)]
    pub old: OsString,

    /// The new image
    #[arg(value_hint = ValueHint::AnyPath)]
    pub new: OsString,

    /// Choose the images for this platform, [os/]arch[/variant]
    #[arg(long, value_name = "PLATFORM", value_parser = platform::parse, help_heading = "Image")]
    pub platform: Option<Platform>,

    /// Never run an image, even if it is a program that writes one
    #[arg(long, help_heading = "Image")]
    pub no_exec: bool,

    #[command(flatten)]
    pub registry: RegistryArgs,

    /// Print one JSON document, with all details
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The arguments of `pushimg tag`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg tag [OPTIONS] <IMAGE> <TAG>...",
    after_long_help = help::text(help::TAG),
    disable_help_flag = true
)]
pub struct TagArgs {
    /// host/repository@sha256:... or host/repository:tag of an image in a registry
    #[arg(value_parser = name::destination)]
    pub image: Reference,

    /// Tags in the same repository
    #[arg(required = true, value_name = "TAG", value_parser = name::tag)]
    pub tags: Vec<String>,

    #[command(flatten)]
    pub registry: RegistryArgs,

    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub json: bool,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The arguments of `pushimg serve`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg serve [OPTIONS] <IMAGE[=NAME]>...",
    after_long_help = help::text(help::SERVE),
    disable_help_flag = true
)]
pub struct ServeArgs {
    /// As for a push; IMAGE=NAME[:TAG] serves it under this name. Default: its own names, or that
    /// of its file
    #[arg(required = true, value_name = "IMAGE", value_hint = ValueHint::AnyPath)]
    pub images: Vec<OsString>,

    /// Where to listen, [ADDRESS:]PORT; only this machine can pull unless an address says otherwise
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:5000", value_parser = name::listen_address)]
    pub listen: SocketAddr,

    /// End when one pull is complete
    #[arg(long)]
    pub until_pulled: bool,

    #[command(flatten)]
    pub selection: SelectionArgs,

    /// Format of the manifest; auto is oci, but docker for gzip layers
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = formats(), help_heading = "Image")]
    pub format: ChosenFormat,

    /// How to compress layers; none serves them as they are
    #[arg(long, value_name = "METHOD", default_value = "none", value_parser = compressions(), help_heading = "Image")]
    pub compression: Compression,

    /// Compression level: 1 to 12 for gzip, default 5; 1 to 22 for zstd, default 3
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Image")]
    pub compression_level: Option<i32>,

    /// Do not read or write the local cache
    #[arg(long, conflicts_with = "cache_dir", help_heading = "Reuse")]
    pub no_cache: bool,

    /// Folder of the local cache
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Reuse")]
    pub cache_dir: Option<PathBuf>,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The arguments of `pushimg login`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg login [OPTIONS] <REGISTRY>",
    after_long_help = help::text(help::LOGIN),
    disable_help_flag = true
)]
pub struct LoginArgs {
    /// host[:port], or docker.io
    #[arg(value_parser = name::registry)]
    pub registry: String,

    /// User name; asked for at the terminal if it is missing
    #[arg(short, long, value_name = "NAME", help_heading = "Registry")]
    pub username: Option<String>,

    /// Read the password from standard input; without it, it is asked for at the terminal
    #[arg(long, help_heading = "Registry")]
    pub password_stdin: bool,

    /// Keep the login in this file, in the format of Docker's config.json
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Registry")]
    pub auth_file: Option<PathBuf>,

    #[command(flatten)]
    pub connection: ConnectionArgs,

    #[command(flatten)]
    pub verbosity: VerbosityArgs,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help, help_heading = "Output")]
    help: Option<bool>,
}

/// The arguments of `pushimg logout`.
#[derive(Debug, clap::Args)]
#[command(
    override_usage = "pushimg logout [OPTIONS] <REGISTRY>",
    after_long_help = help::text(help::LOGOUT),
    disable_help_flag = true
)]
pub struct LogoutArgs {
    /// host[:port], or docker.io
    #[arg(value_parser = name::registry)]
    pub registry: String,

    /// The file that the login is in, in the format of Docker's config.json
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Registry")]
    pub auth_file: Option<PathBuf>,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help)]
    help: Option<bool>,
}

/// The arguments of `pushimg completions`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help::text(help::COMPLETIONS), disable_help_flag = true)]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help)]
    help: Option<bool>,
}

/// The arguments of `pushimg man`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = help::text(help::MAN), disable_help_flag = true)]
pub struct ManArgs {
    /// The folder; created if it is missing
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub folder: PathBuf,

    /// Print the options; --help adds examples
    #[arg(short = 'h', long = "help", action = ArgAction::Help)]
    help: Option<bool>,
}

/// What to push, and in which form.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Image")]
pub struct ImageArgs {
    /// Another tag in the same repository; may be repeated
    #[arg(short, long = "tag", value_name = "TAG", value_parser = name::tag)]
    pub tags: Vec<String>,

    /// Take the tags from the name that the image carries, and the repository from the command line
    #[arg(long, conflicts_with_all = ["all", "file", "index"])]
    pub keep_tag: bool,

    /// Format of the manifest; auto is docker, but oci for zstd layers and with --trust-annotations
    #[arg(long, value_name = "FORMAT", default_value = "auto", value_parser = formats())]
    pub format: ChosenFormat,

    /// How to compress new layers
    #[arg(long, value_name = "METHOD", default_value = "gzip", value_parser = compressions())]
    pub compression: Compression,

    /// Compression level: 1 to 12 for gzip, default 5; 1 to 22 for zstd, default 3
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub compression_level: Option<i32>,

    /// How many layers to upload at the same time, 1 to 64
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_JOBS as u8, value_parser = value_parser!(u8).range(1..=64))]
    pub jobs: u8,

    /// Find out what would be uploaded, and upload nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Ways to push more than one image.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Several images")]
pub struct SeveralArgs {
    /// Push the images that this JSON file lists; - is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["all", "index"])]
    pub file: Option<PathBuf>,

    /// Push every image of an archive under its own name
    #[arg(long, conflicts_with = "index")]
    pub all: bool,

    /// Push images for several platforms, and an index of this name that lists them
    #[arg(long, value_name = "DESTINATION", value_parser = name::target, conflicts_with = "platform")]
    pub index: Option<name::PushTarget>,

    /// Stop pushing the other images when one has failed
    #[arg(long, conflicts_with = "index")]
    pub fail_fast: bool,
}

/// What to print.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Print a report of every layer as one JSON document
    #[arg(long)]
    pub json: bool,

    /// Write the manifest's digest to this file after the push
    #[arg(long, value_name = "PATH", value_hint = ValueHint::FilePath, conflicts_with_all = ["dry_run", "file", "all"])]
    pub digest_file: Option<PathBuf>,

    /// Append a summary in Markdown to this file, such as $GITHUB_STEP_SUMMARY
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub summary: Option<PathBuf>,
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
