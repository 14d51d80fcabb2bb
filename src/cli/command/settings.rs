//! Converts the options of the command line into the library's options.

use std::io::BufRead;

use clap::error::ErrorKind;

use super::checks;
use super::password::password;
use crate::cli::options::{RegistryArgs, ReuseArgs, SshArgs, VerbosityArgs};
use crate::cli::output::Verbosity;
use crate::cli::usage::Usage;
use crate::image::Compression;
use crate::push::{DEFAULT_JOBS, PushOptions};
use crate::registry::{self, auth};
use crate::reuse::CacheLocation;
use crate::ssh;

/// The options that all commands have. The others have their default values.
pub fn options(
    reuse: ReuseArgs,
    registry: RegistryArgs,
    verbosity: &VerbosityArgs,
    stdin: &mut dyn BufRead,
) -> Result<PushOptions, Usage> {
    if let Some(path) = &registry.auth_file {
        checks::auth_file(path)?;
    }
    Ok(PushOptions {
        reuse_from: reuse.reuse_from,
        trust_annotations: reuse.trust_annotations,
        cache: match (reuse.no_cache, reuse.cache_dir) {
            (true, _) => None,
            (false, Some(folder)) => Some(CacheLocation::Folder(folder)),
            (false, None) => Some(CacheLocation::User),
        },
        registry: registry::Options {
            show_headers: verbosity.verbose > 1,
            ..registry_options(registry, stdin)?
        },
        ..default_options()
    })
}

pub fn default_options() -> PushOptions {
    PushOptions {
        format: None,
        compression: Compression::Gzip,
        level: None,
        jobs: DEFAULT_JOBS,
        dry_run: false,
        reuse_from: vec![],
        trust_annotations: false,
        may_run: true,
        fail_fast: false,
        cache: None,
        registry: registry::Options::default(),
        ssh: ssh::Options::default(),
    }
}

/// The options for reaching machines.
pub fn ssh_options(args: SshArgs) -> ssh::Options {
    let named = args.ssh.or_else(|| std::env::var("PUSHIMG_SSH").ok()).unwrap_or_default();
    let command: Vec<String> = named.split_whitespace().map(str::to_owned).collect();
    let ssh::Options { command: usual, .. } = ssh::Options::default();
    ssh::Options {
        command: if command.is_empty() { usual } else { command },
        runtime: args.runtime,
        sudo: args.remote_sudo,
        namespace: args.remote_namespace,
    }
}

pub fn verbosity(args: &VerbosityArgs) -> Verbosity {
    match (args.quiet, args.verbose) {
        (true, _) => Verbosity::Quiet,
        (false, 0) => Verbosity::Normal,
        (false, 1) => Verbosity::Requests,
        (false, _) => Verbosity::Headers,
    }
}

fn registry_options(
    args: RegistryArgs,
    stdin: &mut dyn BufRead,
) -> Result<registry::Options, Usage> {
    let explicit = match args.username {
        Some(name) if name.contains(':') => {
            return Err(Usage::new(
                ErrorKind::ValueValidation,
                "invalid value for '--username <NAME>': a user name has no ':'",
                "give the name alone, and the password on standard input",
            ));
        }
        Some(name) => Some((name, password(stdin)?)),
        None => None,
    };
    Ok(registry::Options {
        plain_http: args.connection.plain_http,
        credentials: auth::Sources {
            explicit,
            auth_file: args.auth_file,
            environment: auth::Environment::capture(),
        },
        retry_for: args.retry_for,
        idle_timeout: args.idle_timeout,
        tls: args.connection.tls(),
        ..Default::default()
    })
}
