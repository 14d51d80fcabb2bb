//! The limit of open files, of which the program needs some 100: at most 128 connections, and a few
//! files for each image.

use std::fs::File;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};

/// What the runtime and a first connection need.
const LEAST: usize = 16;
/// More than any push needs.
const ENOUGH: u64 = 4096;

/// What to do about an error: about the limit if it was reached, `otherwise` if not.
pub(crate) fn advice(error: &io::Error, otherwise: &'static str) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE | Errno::NFILE) => {
            "raise the limit of open files (`ulimit -n 1024`; LimitNOFILE= in systemd), or push \
             fewer images in one command"
        }
        _ => otherwise,
    }
}

/// Raises the soft limit of this process, within the hard limit. Programs that it starts inherit it.
pub(crate) fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|files| files < ENOUGH) {
        limit.current = Some(limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH)));
        // If that is not allowed, the program works with what it has.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Whether the few files can be opened without which nothing can begin.
pub(crate) fn check() -> io::Result<()> {
    let opened: io::Result<Vec<File>> = (0..LEAST).map(|_| File::open("/dev/null")).collect();
    opened.map(drop)
}

/// How many connections to one registry may be open for small requests, if `wanted` would be best:
/// at most a quarter of all files.
pub(crate) fn connections(wanted: usize) -> usize {
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    wanted.min(usize::try_from(files / 4).unwrap_or(wanted))
}
