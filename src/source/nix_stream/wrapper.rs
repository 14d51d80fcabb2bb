//! The wrapper, to which `./result` leads. It runs a stream script with a conf.
//!
//! Input: a shell script as nixpkgs' `makeWrapper` writes it, or a program as `makeBinaryWrapper`
//! compiles it, which contains the command that made it as text. Output: the paths in it.

use std::path::PathBuf;

use super::refusal::Refusal;
use super::words::{Word, words};

/// The longest wrapper that is read: compiled ones have some 20 KB.
pub const MAX_WRAPPER_BYTES: u64 = 1 << 20;

/// What a wrapper runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrapper {
    /// The stream script.
    pub script: PathBuf,
    /// Its `conf.json`.
    pub conf: PathBuf,
    /// The name that replaces the one in the conf.
    pub repo_tag: Option<String>,
}

/// How the text in a compiled wrapper begins.
const BINARY_MARK: &[u8] = b"makeCWrapper ";

/// Reads a wrapper.
pub fn parse(bytes: &[u8]) -> Result<Wrapper, Refusal> {
    if bytes.starts_with(b"#!") {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| Refusal::unknown("it is a script that is not UTF-8"))?;
        return shell(text);
    }
    let mut places = bytes.windows(BINARY_MARK.len());
    let Some(start) = places.position(|window| window == BINARY_MARK) else {
        return Err(Refusal::unknown("it is a program that no Nix wrapper was compiled to"));
    };
    let text = &bytes[start + BINARY_MARK.len()..];
    let end = text.windows(2).position(|two| two == b"\n\n" || two[0] == 0);
    let text = end.and_then(|end| std::str::from_utf8(&text[..end]).ok());
    compiled(text.ok_or_else(|| Refusal::unknown("the text in the wrapper has no end"))?)
}

/// Reads a shell wrapper: `exec "…-stream" …-conf.json "$@"`, without any other command that has an
/// effect.
fn shell(text: &str) -> Result<Wrapper, Refusal> {
    // Lines without effect that the oldest and the newest versions write before the command.
    const IDLE: [&str; 4] = ["declare -a extraFlagsArray=()", "set +u", "set -u", "set -e"];
    const ALL_ARGUMENTS: &str = "\"$@\"";
    const NO_ARGUMENTS: &str = "\"${extraFlagsArray[@]}\"";
    let text = text.replace("\\\n", " ");
    let mut lines = text.lines().map(str::trim).filter(|line| {
        let is_comment = line.is_empty() || line.starts_with('#');
        !is_comment && !IDLE.contains(line)
    });
    let unclear = || Refusal::unknown("it is a script, and not one of Nix's wrappers");
    let (Some(command), None) = (lines.next(), lines.next()) else {
        return Err(unclear());
    };
    let mut words = words(command).ok_or_else(unclear)?.into_iter().peekable();
    if words.next().is_none_or(|word| word.raw != "exec") {
        return Err(unclear());
    }
    if words.next_if(|word| word.raw == "-a").is_some() {
        words.next();
    }
    let script = words.next();
    let mut arguments: Vec<Word> = words.filter(|word| word.raw != NO_ARGUMENTS).collect();
    if arguments.pop().is_none_or(|word| word.raw != ALL_ARGUMENTS) {
        return Err(unclear());
    }
    wrapper(script, arguments)
}

/// Reads the text of a compiled wrapper: `…-stream --inherit-argv0 --add-flags '…-conf.json'`, on
/// several continued lines.
fn compiled(text: &str) -> Result<Wrapper, Refusal> {
    let unclear = || Refusal::unknown("the wrapper was not made as Nix makes that of an image");
    let mut parameters = words(&text.replace("\\\n", " ")).ok_or_else(unclear)?.into_iter();
    let script = parameters.next();
    let mut arguments = Vec::new();
    while let Some(parameter) = parameters.next() {
        match parameter.text.as_deref() {
            Some("--inherit-argv0" | "--resolve-argv0") => {}
            Some("--argv0") => {
                parameters.next();
            }
            Some("--add-flag") => arguments.extend(parameters.next()),
            Some("--add-flags") => {
                let flags = parameters.next().and_then(|word| word.text).ok_or_else(unclear)?;
                arguments.extend(words(&flags).ok_or_else(unclear)?);
            }
            _ => return Err(unclear()),
        }
    }
    wrapper(script, arguments)
}

fn wrapper(script: Option<Word>, arguments: Vec<Word>) -> Result<Wrapper, Refusal> {
    let unclear = |word: &Word| Refusal::unknown(format!("its wrapper passes {:?}", word.raw));
    let mut confs = Vec::new();
    let mut repo_tag = None;
    let mut arguments = arguments.into_iter();
    while let Some(word) = arguments.next() {
        match word.text.as_deref() {
            Some("-t" | "--repo_tag") => {
                let tag = arguments.next().ok_or_else(|| unclear(&word))?;
                repo_tag = Some(tag.text.clone().ok_or_else(|| unclear(&tag))?);
            }
            Some(text) if text.starts_with("--repo_tag=") => {
                repo_tag = text.strip_prefix("--repo_tag=").map(str::to_owned);
            }
            Some(text) if text.starts_with('/') => confs.push(PathBuf::from(text)),
            _ => return Err(unclear(&word)),
        }
    }
    let script = script.and_then(|word| word.text).map(PathBuf::from);
    match (script.filter(|path| path.is_absolute()), confs.pop(), confs.pop()) {
        (Some(script), Some(conf), None) => Ok(Wrapper { script, conf, repo_tag }),
        _ => Err(Refusal::unknown("its wrapper does not run one script with one conf.json")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: impl AsRef<[u8]>) -> Wrapper {
        match parse(text.as_ref()) {
            Ok(wrapper) => wrapper,
            Err(_) => panic!("{}", String::from_utf8_lossy(text.as_ref())),
        }
    }

    fn plain() -> Wrapper {
        Wrapper { script: "/s/a-stream".into(), conf: "/s/b-conf.json".into(), repo_tag: None }
    }

    fn binary(command: &str) -> Vec<u8> {
        let head = b"\x7fELF\x02\x01\x01\0makeC makeCWrappe\0\n\n\n# --\n# The C-code\n\n\n";
        let tail = b"\n\n\n\n# (Use `nix-shell -p makeBinaryWrapper`)\n\0\xff\xfe";
        [head, BINARY_MARK, command.as_bytes(), tail].concat()
    }

    #[test]
    fn wrappers_of_all_versions_are_read() {
        for text in [
            "#! /s/bash-5.2/bin/bash -e\nexec \"/s/a-stream\"  /s/b-conf.json \"$@\" \n",
            "#! /s/bash -e\nexec /s/a-stream  /s/b-conf.json \"${extraFlagsArray[@]}\" \"$@\"\n",
            "#! /s/bash -eu\ndeclare -a extraFlagsArray=()\nset +u\nexec '/s/a-stream' \
             /s/b-conf.json \"${extraFlagsArray[@]}\" \"$@\"",
            "#!/bin/sh\n\n# A comment.\nexec -a \"$0\" \"/s/a-stream\" \\\n  /s/b-conf.json \\\n  \"$@\"",
        ] {
            assert_eq!(understood(text), plain(), "{text}");
        }
        for command in [
            "/s/a-stream \\\n    --add-flags '/s/b-conf.json'",
            "'/s/a-stream' \\\n    --inherit-argv0 \\\n    --add-flags ' /s/b-conf.json '",
            "/s/a-stream \\\n    --argv0 'x' \\\n    --add-flag '/s/b-conf.json'",
        ] {
            assert_eq!(understood(binary(command)), plain(), "{command}");
        }
    }

    #[test]
    fn a_name_passed_by_the_wrapper_takes_the_place_of_the_confs() {
        let named = Wrapper { repo_tag: Some("a/b:c".into()), ..plain() };
        for flags in ["-t a/b:c", "--repo_tag 'a/b:c'", "--repo_tag=a/b:c"] {
            let text = format!("#!/bin/sh\nexec /s/a-stream /s/b-conf.json {flags} \"$@\"");
            assert_eq!(understood(text), named);
            let command = format!("/s/a-stream \\\n --add-flags \"{flags} /s/b-conf.json\"");
            assert_eq!(understood(binary(&command)), named);
        }
    }

    #[test]
    fn whatever_else_a_wrapper_may_do_is_not_understood() {
        for text in [
            "#!/bin/sh\n",
            "#!/bin/sh\n/s/a-stream /s/b-conf.json \"$@\"",
            "#!/bin/sh\nexec /s/a-stream /s/b-conf.json",
            "#!/bin/sh\nexec /s/a-stream \"$@\"",
            "#!/bin/sh\nexec",
            "#!/bin/sh\nexec a-stream /s/b-conf.json \"$@\"",
            "#!/bin/sh\nexec /s/a-stream b-conf.json \"$@\"",
            "#!/bin/sh\nexec /s/a-stream /s/b-conf.json /s/c \"$@\"",
            "#!/bin/sh\nexec /s/a-stream /s/b-conf.json --fast \"$@\"",
            "#!/bin/sh\nexec /s/a-stream /s/b-conf.json -t \"$@\"",
            "#!/bin/sh\nexec /s/a-stream \"$CONF\" \"$@\"",
            "#!/bin/sh\nexec /s/a-stream /s/b-conf.json \"$@\" | gzip",
            "#!/bin/sh\nexport TZ='x'\nexec /s/a-stream /s/b-conf.json \"$@\"",
            "#!/bin/sh\nexec /s/a-stream /s/b-conf.json \"$@\"\nrm -r x",
            "#!/bin/sh\nexec \"/s/a-stream",
        ] {
            assert!(matches!(parse(text.as_bytes()), Err(Refusal::Unknown(_))), "{text}");
        }
        for bytes in [
            b"\x7fELF\x02\x01".to_vec(),
            b"\x7fELFmakeCWrapper /s/a-stream".to_vec(),
            binary(""),
            binary("/s/a-stream"),
            binary("/s/a-stream --set 'TZ' 'x' --add-flags '/s/b-conf.json'"),
            binary("/s/a-stream --add-flags"),
            binary("/s/a-stream --add-flags '$x'"),
            b"#!/bin/sh\n\xff".to_vec(),
        ] {
            assert!(matches!(parse(&bytes), Err(Refusal::Unknown(_))));
        }
    }
}
