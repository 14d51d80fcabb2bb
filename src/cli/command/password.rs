//! `--password-stdin`.

use std::io::{BufRead, Read};

use clap::error::ErrorKind;
use zeroize::Zeroizing;

use crate::cli::usage::Usage;
use crate::registry::auth;

/// The longest password. The key of a Google service account has about 2,400 bytes.
const MAX_PASSWORD: u64 = 64 * 1024;

/// Reads the password from standard input.
pub fn password(stdin: &mut dyn BufRead) -> Result<auth::Secret, Usage> {
    read(stdin).map(|text| auth::Secret::new(text.as_str())).map_err(|what| {
        Usage::new(
            ErrorKind::ValueValidation,
            &format!("the password on standard input {what}"),
            "pipe it in: echo \"$TOKEN\" | pushimg ... --username NAME --password-stdin",
        )
    })
}

/// Reads all of `stdin` except its last line end, as docker does, because some passwords have
/// several lines, such as the JSON key of a Google service account. The error says what is wrong.
pub fn read(stdin: &mut dyn BufRead) -> Result<Zeroizing<String>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    stdin
        .take(MAX_PASSWORD + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_PASSWORD {
        return Err("has no end".into());
    }
    let password = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    match std::str::from_utf8(password) {
        Ok("") => Err("is empty".into()),
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err("is not UTF-8".into()),
    }
}
