//! `--password-stdin`.

use std::io::{BufRead, Read};

use clap::error::ErrorKind;
use zeroize::Zeroizing;

use crate::cli::usage::Usage;
use crate::registry::auth;

/// No password is longer; a token of a cloud's registry has some 2,000 bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

/// The password on standard input.
pub fn password(stdin: &mut dyn BufRead) -> Result<auth::Secret, Usage> {
    first_line(stdin).map(|line| auth::Secret::new(line.as_str())).map_err(|what| {
        Usage::new(
            ErrorKind::ValueValidation,
            &format!("the password on standard input {what}"),
            "pipe it in: echo \"$TOKEN\" | pushimg --username NAME --password-stdin ...",
        )
    })
}

/// The first line of `stdin`, without what ends it; or what is wrong with it.
pub fn first_line(stdin: &mut dyn BufRead) -> Result<Zeroizing<String>, String> {
    let mut line = Zeroizing::new(Vec::new());
    stdin
        .take(MAX_PASSWORD + 1)
        .read_until(b'\n', &mut line)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if line.len() as u64 > MAX_PASSWORD {
        return Err("has no end".into());
    }
    let line = line.strip_suffix(b"\n").unwrap_or(&line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok("") => Err("is empty".into()),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("is not UTF-8".into()),
    }
}
