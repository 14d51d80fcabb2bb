//! Tests of wrong command lines with their messages, and of right ones with their results.

use std::time::Duration;

use clap::CommandFactory;

use super::password::read;
use super::*;
use crate::cli::exit::Code;
use crate::cli::help::{self, Body};
use crate::image;
use crate::push::Item;
use crate::registry;
use crate::reuse::CacheLocation;

fn parse_with(arguments: &str, mut stdin: &[u8]) -> Result<Invocation, Usage> {
    let arguments = std::iter::once("pushimg").chain(arguments.split_whitespace());
    Invocation::parse(arguments, &mut stdin, false)
}

fn parse(arguments: &str) -> Invocation {
    parse_with(arguments, b"").unwrap_or_else(|usage| panic!("{arguments}: {}", usage.error))
}

/// The only image that is pushed.
fn item(invocation: &Invocation) -> &Item {
    match &invocation.command {
        Command::Push(item) => item,
        other => panic!("not one image: {other:?}"),
    }
}

/// The message for a wrong command line, which has the exit code 2.
fn mistake(arguments: &str) -> String {
    mistake_with(arguments, b"")
}

fn mistake_with(arguments: &str, stdin: &[u8]) -> String {
    let usage = parse_with(arguments, stdin).unwrap_err();
    assert_eq!(usage.code(), Code::Usage, "{arguments}");
    let text = usage.error.to_string();
    assert!(text.starts_with("error: "), "{text}");
    assert!(text.contains("try '--help'"), "{text}");
    text
}

#[test]
fn the_definition_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn an_image_alone_gets_the_documented_defaults() {
    let invocation = parse("result");
    let push = &invocation.options;
    let item = item(&invocation);
    assert_eq!(item.image, Location::Path("result".into()));
    assert!(item.destination.is_none() && item.tags.is_empty() && push.format.is_none());
    assert_eq!(push.compression, image::Compression::Gzip);
    assert_eq!(push.level, None);
    assert_eq!(push.jobs, crate::push::DEFAULT_JOBS);
    assert!(matches!(push.cache, Some(CacheLocation::User)));
    assert_eq!(push.registry.retry_for, registry::DEFAULT_RETRY_FOR);
    assert!(!push.dry_run && !push.registry.plain_http && !invocation.json);
    assert!(push.may_run && !push.trust_annotations && !push.fail_fast);
    assert!(!push.registry.tls.skip_verify);
    assert!(push.registry.credentials.explicit.is_none());
    assert_eq!(invocation.verbosity, Verbosity::Normal);
}

#[test]
fn every_option_arrives() {
    let invocation = parse(
        "./result r.io/app:v1 -t v2 --tag latest -t v2 -t v1 --format oci --compression zstd \
         --compression-level 19 -j 3 --dry-run --reuse-from r.io/base --cache-dir /c \
         --auth-file /dev/null --plain-http --ca-file /ca --insecure-skip-tls-verify --retry-for 90s --idle-timeout 5m \
         --image app:v1 --platform arm64 --no-exec --trust-annotations --json -vvv",
    );
    let push = &invocation.options;
    let item = item(&invocation);
    assert_eq!(item.destination.as_ref().unwrap().whole(), "r.io/app:v1");
    assert_eq!(item.tags, ["v2", "latest"]);
    assert_eq!(item.selection.name.as_deref(), Some("app:v1"));
    assert_eq!(item.selection.platform.as_ref().unwrap().to_string(), "linux/arm64");
    assert!(!push.may_run && push.trust_annotations);
    assert_eq!(push.format, Some(image::Format::Oci));
    assert_eq!(push.compression, image::Compression::Zstd);
    assert_eq!((push.level, push.jobs, push.dry_run), (Some(19), 3, true));
    assert_eq!(push.reuse_from[0].whole(), "r.io/base:latest");
    assert!(matches!(&push.cache, Some(CacheLocation::Folder(f)) if f == Path::new("/c")));
    let registry = &push.registry;
    assert_eq!(registry.credentials.auth_file.as_deref(), Some(Path::new("/dev/null")));
    assert_eq!(registry.tls.ca_file.as_deref(), Some(Path::new("/ca")));
    assert!(registry.plain_http && registry.tls.skip_verify);
    assert_eq!(registry.retry_for, Duration::from_secs(90));
    assert_eq!(registry.idle_timeout, Duration::from_secs(300));
    assert!(invocation.json);
    assert_eq!(invocation.verbosity, Verbosity::Headers);
}

#[test]
fn standard_input_is_an_image_or_a_password() {
    assert_eq!(item(&parse("-")).image, Location::Stdin);
    let said = mistake("- r.io/app --username me --password-stdin");
    assert!(said.contains("'--password-stdin' cannot be used with the image '-'"), "{said}");
    let terminal = Invocation::parse(["pushimg", "-"], &mut &b""[..], true).unwrap_err();
    assert!(terminal.error.to_string().contains("is a terminal"));
    assert_eq!(terminal.code(), Code::Usage);
}

#[test]
fn a_password_is_all_of_standard_input_but_its_last_line_end() {
    for (input, word) in [
        (&b"secret\n"[..], "secret"),
        (b"secret", "secret"),
        (b"sec ret \r\n", "sec ret "),
        (b"{\n  \"type\": \"service_account\"\n}\n", "{\n  \"type\": \"service_account\"\n}"),
        (b"two\n\n", "two\n"),
    ] {
        let arguments = "x --username me --password-stdin";
        let push = parse_with(arguments, input).unwrap().options;
        let (name, _) = push.registry.credentials.explicit.as_ref().unwrap();
        assert_eq!(name, "me");
        // Read it again here, because the text of a `Secret` cannot be compared.
        let read = read(&mut &input[..]).unwrap();
        assert_eq!(read.as_str(), word);
        assert!(!format!("{push:?}").contains(word));
    }
    let arguments = "x --username me --password-stdin";
    assert!(mistake_with(arguments, b"\n").contains("is empty"));
    assert!(mistake_with(arguments, b"").contains("is empty"));
    assert!(mistake_with(arguments, b"\xff\n").contains("is not UTF-8"));
    assert!(mistake_with(arguments, &vec![b'x'; 70_000]).contains("has no end"));
    assert!(!mistake_with(arguments, b"hunter2\xff").contains("hunter2"));
    let colon = mistake_with("x --username me:secret --password-stdin", b"p");
    assert!(colon.contains("has no ':'") && !colon.contains("secret"), "{colon}");
}

#[test]
fn every_mistake_is_named() {
    for (arguments, said) in [
        ("", "<IMAGE>"),
        ("a r.io/b c", "unexpected argument 'c'"),
        ("push a r.io/b", "there is no command 'push'"),
        ("a localhost:05000/b", "a port has no leading zeros: write localhost:5000"),
        ("inspect ssh://host/a", "an image on a machine cannot be read"),
        ("inspect ssh://host/a", "Usage: pushimg inspect [OPTIONS] <IMAGE>"),
        ("-q serve a --listen 1", "the options of 'serve' come after it"),
        ("r.io/a Cargo.toml", "the image comes first, but 'Cargo.toml' is the file"),
        ("r.io/a Cargo.toml", "tip: pushimg Cargo.toml r.io/a"),
        ("serve a=B", "Usage: pushimg serve [OPTIONS] <IMAGE[=NAME]>..."),
        ("a --bogus", "unexpected argument '--bogus'"),
        ("a --dry-rum", "similar argument exists: '--dry-run'"),
        ("a --username me", "--password-stdin"),
        ("a --password-stdin", "--username <NAME>"),
        ("a https://r.io/b", "leave out the https:// and write r.io/b"),
        ("a r.io/B", "a repository is lowercase; write r.io/b"),
        ("a r.io/", "such as registry.fly.io/app:latest"),
        ("a r.io:5000", "the repository is missing: r.io:5000/NAME"),
        ("a -t r.io/b:c", "give the tag alone"),
        ("a -t .x", "a tag is at most 128"),
        ("a --format tar", "[possible values: auto, docker, oci]"),
        ("a --compression xz", "[possible values: gzip, zstd, none]"),
        ("a --format docker --compression zstd", "tip: use '--format oci'"),
        ("a --compression-level 13", "with gzip, a level is 1 (fastest) to 12"),
        ("a --compression-level 0", "with gzip"),
        ("a --compression-level -1", "invalid value '-1'"),
        ("a --compression zstd --compression-level 23", "with zstd, a level is 1 (fastest) to 22"),
        ("a --compression none --compression-level 1", "cannot be used with '--compression none'"),
        ("a -j 0", "0 is not in 1..=64"),
        ("a -j 65", "65 is not in 1..=64"),
        ("a -j many", "invalid digit"),
        ("a --reuse-from https://r.io/b", "leave out the https://"),
        ("a r.io/b --reuse-from q.io/c", "the destination is at r.io"),
        ("a ssh://h/b --format oci", "'--format <FORMAT>' cannot be used with 'ssh://'"),
        ("a ssh://h/b --reuse-from q.io/c", "it is for registries; leave it out"),
        ("a ssh://h/b --runtime podman --remote-namespace x", "only containerd has namespaces"),
        ("a SSH://h//b", "is no name of an image; write ssh://HOST/NAME:TAG"),
        ("a r.io/b --remote-sudo", "it is for ssh:// destinations; leave it out"),
        ("a --no-cache --cache-dir /c", "cannot be used with"),
        ("a --retry-for 5", "a number with its unit, such as 90s"),
        ("a --idle-timeout 0", "that is too short; the shortest is 1s"),
        ("a --idle-timeout 9999999999999999999s", "that is too long; the longest is 366days"),
        ("a --retry-for 99999999999999999999h", "that is too long; the longest is 366days"),
        ("a --compression-level 99999999999", "not in"),
        ("a -j 99999999999999999999", "number too large to fit in target type"),
        ("a -q -v", "cannot be used with"),
        ("a --digest-file /no/such/folder/f", "in a folder that exists"),
        ("a --digest-file /tmp", "in a folder that exists"),
        ("a --digest-file f --dry-run", "cannot be used with"),
        ("a --summary /no/such/folder/f", "in a folder that exists"),
        ("a --keep-tag", "cannot be used with no destination"),
        ("a r.io/b:v1 --keep-tag", "give the repository alone"),
        ("- r.io/b --keep-tag", "the image is read twice"),
        ("--all a --keep-tag", "cannot be used with"),
        ("a --platform linux/", "expected os/arch[/variant], such as linux/arm64"),
        ("a --fail-fast", "cannot be used with a single image"),
        ("--json inspect a", "the options of 'inspect' come after it"),
        ("--json man a", "to push a file of this name: pushimg ./man"),
        ("completions tcsh", "[possible values: bash, elvish, fish, powershell, zsh]"),
        ("man", "<DIR>"),
        ("inspect", "<IMAGE>"),
        ("inspect a b", "unexpected argument 'b'"),
        ("inspect a -t b", "unexpected argument '-t'"),
        ("inspect - --against r.io/b", "cannot be used with the image '-'"),
        ("inspect a --against r.io/b --reuse-from q.io/c", "the destination is at r.io"),
        ("inspect a --against R.io", "the repository is missing: R.io/NAME"),
        ("inspect a --against r.io/App", "a repository is lowercase; write r.io/app"),
    ] {
        let text = mistake(arguments);
        assert!(text.contains(said), "{arguments}: {text}");
    }
    assert!(item(&parse("a --reuse-from q.io/c")).destination.is_none());
    assert_eq!(parse("a --retry-for 0").options.registry.retry_for, Duration::ZERO);
    assert!(parse("a --no-cache").options.cache.is_none());
}

#[test]
fn a_login_in_a_destination_is_never_printed() {
    for arguments in [
        "a me:s3cret@r.io/b",
        "a https://me:s3cret@r.io/b",
        "a=me:s3cret@r.io/b",
        "a r.io/b me:s3cret@r.io/c",
        "--index me:s3cret@r.io/b a",
        "a --reuse-from me:s3cret@r.io/b",
        "a -t me:s3cret@r.io/b",
        "inspect a --against me:s3cret@r.io/b",
        "inspect a me:s3cret@r.io/b",
    ] {
        let text = mistake(arguments);
        assert!(!text.contains("s3cret"), "{arguments}: {text}");
        assert!(text.contains("***@r.io"), "{arguments}: {text}");
    }
    let list = br#"[{"image": "a", "destination": "me:s3cret@r.io/b"}]"#;
    let text = mistake_with("--file -", list);
    assert!(!text.contains("s3cret") && text.contains("--username"), "{text}");
}

#[test]
fn help_is_short_and_long_and_fits_eighty_columns() {
    let help = |arguments| parse_with(arguments, b"").unwrap_err();
    let (short, long, version) = (help("-h"), help("--help"), help("--version"));
    for asked in [&short, &long, &version] {
        assert_eq!(asked.code(), Code::Pushed);
    }
    assert!(short.long_help().is_none() && version.long_help().is_none());
    assert_eq!(version.error.to_string(), format!("pushimg {}\n", env!("CARGO_PKG_VERSION")));
    let text = long.long_help().unwrap().render_help().to_string();
    for part in [
        "Usage: pushimg [OPTIONS] <IMAGE> [DESTINATION]",
        "pushimg inspect [OPTIONS] <IMAGE>",
        "--reuse-from <REF>",
        "Examples:",
        "130  interrupted",
        "REGISTRY_AUTH_FILE",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let (short, long) = (help("inspect -h"), help("inspect --help"));
    assert!(short.long_help().is_none());
    let text = long.long_help().unwrap().render_help().to_string();
    for part in ["Usage: pushimg inspect [OPTIONS] <IMAGE>", "--against <REF>", "Examples:"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn the_examples_of_the_help_are_right() {
    let mut checked = 0;
    let names = ["pushimg", "inspect", "diff", "tag", "completions", "man"];
    let commands =
        names.iter().flat_map(|name| help::sections(name)).flat_map(|section| match section.body {
            Body::Commands(commands) => commands,
            Body::Paragraph(_) | Body::Table(_) => &[],
        });
    for line in commands {
        let Some((_, command)) = line.split_once("pushimg ") else {
            continue;
        };
        let command = command.split('#').next().unwrap();
        // The part after `|` or `>` does not belong to pushimg.
        let command = command.split(['|', '>']).next().unwrap();
        parse(command);
        checked += 1;
    }
    assert_eq!(checked, 23);
}

#[test]
fn an_image_can_be_looked_at() {
    let invocation = parse("inspect ./result --image app --json --against r.io/app --no-exec");
    let Command::Inspect { image: AnyImage::Local(image, selection), against } =
        &invocation.command
    else {
        panic!("no inspection: {invocation:?}");
    };
    assert_eq!(*image, Location::Path("./result".into()));
    assert_eq!(selection.name.as_deref(), Some("app"));
    assert_eq!(against.as_ref().unwrap().whole(), "r.io/app:latest");
    assert!(invocation.json && invocation.options.dry_run && !invocation.options.may_run);
    // A file with the name of a command can be pushed by its path, and a repository may have such a
    // name.
    assert_eq!(item(&parse("./inspect")).image, Location::Path("./inspect".into()));
    let destination = item(&parse("a inspect")).destination.as_ref().unwrap().whole();
    assert_eq!(destination, "docker.io/library/inspect:latest");
}
