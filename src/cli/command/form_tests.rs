//! Tests of every form of the command line, and of wrong mixtures of them.

use std::io::Write;

use super::*;
use crate::cli::exit::Code;
use crate::push::Item;

fn try_command(arguments: &[&str], mut stdin: &[u8]) -> Result<Command, Usage> {
    let arguments = std::iter::once("pushimg").chain(arguments.iter().copied());
    let args = Args::try_parse_from(arguments)?.push;
    let command = push_command(&args, &mut stdin)?;
    checks::options_fit(&args, &command)?;
    Ok(command)
}

fn command(arguments: &str) -> Command {
    let arguments: Vec<&str> = arguments.split_whitespace().collect();
    try_command(&arguments, b"").unwrap_or_else(|usage| panic!("{arguments:?}: {}", usage.error))
}

#[track_caller]
fn mistake(arguments: &[&str], stdin: &str) -> String {
    let usage = try_command(arguments, stdin.as_bytes()).unwrap_err();
    assert_eq!(usage.code(), Code::Usage);
    usage.error.to_string()
}

/// The images with their destinations.
fn shown(items: &[Item]) -> Vec<(String, String)> {
    let to = |item: &Item| item.destination.as_ref().map(|to| to.whole()).unwrap_or_default();
    items.iter().map(|item| (item.image.to_string(), to(item))).collect()
}

fn several(command: Command) -> Vec<Item> {
    match command {
        Command::PushSeveral(items) => items,
        other => panic!("not several: {other:?}"),
    }
}

#[test]
fn pairs_are_images_with_their_destinations() {
    let items = several(command("--platform arm64 -- a=r.io/a:v1 ./b=c=r.io/b -=r.io/d"));
    let pair = |image: &str, to: &str| (image.to_owned(), to.to_owned());
    assert_eq!(
        shown(&items),
        [
            pair("a", "r.io/a:v1"),
            pair("./b=c", "r.io/b:latest"),
            pair("standard input", "r.io/d:latest")
        ]
    );
    assert!(items.iter().all(|item| item.selection.platform.is_some()));
}

#[test]
fn one_pair_is_an_image_and_its_destination() {
    let Command::Push(item) = command("a=r.io/a:v1 -t v2") else { panic!("not one") };
    assert_eq!(shown(&[item]), [("a".to_owned(), "r.io/a:v1".to_owned())]);
}

#[test]
fn a_file_is_an_image_whatever_is_in_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a=b");
    fs_err::write(&path, "").unwrap();
    let path = path.to_str().unwrap();
    let Command::Push(item) = command(&format!("{path} r.io/c")) else { panic!("not one") };
    assert_eq!(shown(&[item]), [(path.to_owned(), "r.io/c:latest".to_owned())]);
    let items = several(command(&format!("{path}=r.io/c {path}:v1=r.io/d")));
    assert_eq!(items[0].image.to_string(), path);
    assert_eq!(
        (items[1].image.to_string().as_str(), &items[1].selection.name),
        (path, &Some("v1".into()))
    );
}

#[test]
fn an_index_is_made_of_images_and_their_platforms() {
    let task = command("--index r.io/app:v1 amd64=a linux/arm64/v8=b=c d -t latest -t v1");
    let Command::PushIndex(index) = task else { panic!("no index") };
    assert_eq!(index.destination.whole(), "r.io/app:v1");
    assert_eq!(index.tags, ["latest"]);
    let images: Vec<_> = index
        .images
        .iter()
        .map(|image| (image.image.to_string(), image.platform.as_ref().map(ToString::to_string)))
        .collect();
    let image = |path: &str, platform: Option<&str>| (path.to_owned(), platform.map(str::to_owned));
    assert_eq!(
        images,
        [image("a", Some("linux/amd64")), image("b=c", Some("linux/arm64/v8")), image("d", None)]
    );
}

#[test]
fn a_file_lists_images_by_paths_that_start_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = fs_err::File::create(folder.path().join("images.json")).unwrap();
    file.write_all(br#"[{"image": "a", "destination": "r.io/a"}]"#).unwrap();
    let path = file.path().to_str().unwrap();
    let items = several(command(&format!("--file {path} --platform amd64 --fail-fast")));
    let image = folder.path().join("a").to_str().unwrap().to_owned();
    assert_eq!(shown(&items), [(image, "r.io/a:latest".to_owned())]);
    assert_eq!(items[0].selection.platform.as_ref().unwrap().to_string(), "linux/amd64");
    let list = br#"[{"image": "a"}, {"image": "b"}]"#;
    let items = several(try_command(&["--file", "-"], list).unwrap());
    assert_eq!(items[1].image.to_string(), "b");
}

#[test]
fn all_images_of_an_archive_are_one_argument() {
    let Command::PushAll { archive, platform } = command("--all a --platform amd64 --fail-fast")
    else {
        panic!("not all");
    };
    assert_eq!((archive.to_string().as_str(), platform.is_some()), ("a", true));
}

#[test]
fn forms_are_not_mixed() {
    for (arguments, said) in [
        ("a r.io/b c", "unexpected argument 'c'"),
        ("a r.io/b c=r.io/d", "unexpected argument 'c=r.io/d'"),
        ("a=r.io/b r.io/c", "unexpected argument 'r.io/c'"),
        ("a b=r.io/c", "for several: pushimg IMAGE=DESTINATION IMAGE=DESTINATION ..."),
        ("a=https://r.io/b", "leave out the https:// and write r.io/b"),
        ("a=r.io/b c=", "invalid value '' for 'DESTINATION'"),
        ("=r.io/b", "invalid value '' for 'IMAGE'"),
        ("a=r.io/a b=r.io/b -t v1", "cannot be used with several images"),
        ("a=r.io/a b=r.io/b -t v1", "\"tags\" in what '--file' lists"),
        ("a=r.io/a b=r.io/b --image x", "PATH:NAME=DESTINATION"),
        ("a=r.io/a b=r.io/b --digest-file f", "standard output has the digests"),
        ("-- -=r.io/a -=r.io/b", "are both standard input"),
        ("a=r.io/a b=r.io/a:latest", "'a' and 'b' both go to r.io/a:latest"),
        ("a=app b=docker.io/library/app", "both go to docker.io/library/app:latest"),
        ("--all", "<IMAGE>"),
        ("--all a r.io/b", "each image goes to its own name"),
        ("--all -", "put it into a file"),
        ("--all a -t v1", "each image goes under its own names"),
        ("--all a --digest-file f", "cannot be used with"),
        ("--all a --index r.io/b", "cannot be used with"),
        ("--all a --file f", "cannot be used with"),
        ("--index r.io/a", "<IMAGE>"),
        ("--index r.io/a x/y/z/w=b", "invalid value 'x/y/z/w' for 'PLATFORM=IMAGE'"),
        ("--index r.io/a amd64=b linux/x86_64=c", "two images are for linux/amd64"),
        ("--index r.io/a amd64=- arm64=-", "are both standard input"),
        ("--index r.io/a amd64=b --platform amd64", "cannot be used with"),
        ("--index r.io/a amd64=b --image x", "PLATFORM=PATH:NAME"),
        ("--index r.io/a amd64=b --fail-fast", "cannot be used with"),
        ("--index https://r.io/a amd64=b", "leave out the https://"),
        ("--file /no/such/file", "cannot be read"),
        ("--file f a", "unexpected argument 'a' besides '--file <FILE>'"),
        ("--file f --index r.io/a", "cannot be used with"),
    ] {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let text = mistake(&words, "");
        assert!(text.contains(said), "{arguments}: {text}");
    }
}

#[test]
fn a_listed_image_is_checked_like_any_other() {
    let mistake =
        |list: &str, options: &[&str]| mistake(&[&["--file", "-"], options].concat(), list);
    for (list, said) in [
        (r#"[{"image": "-"}]"#, "are both standard input"),
        (r#"[{"image": "a", "tag": "v1"}]"#, "element 1: \"tag\" is not known"),
        (r#"[{"image": "a", "\u001b[2J": 1}]"#, "\\u{1b}[2J"),
        (
            r#"[{"image": "a", "destination": "r.io/a", "tags": ["v1"]},
                {"image": "b", "destination": "r.io/a:v2", "tags": ["v3", "v1"]}]"#,
            "'a' and 'b' both go to r.io/a:v1",
        ),
    ] {
        let text = mistake(list, &[]);
        assert!(text.contains(said) && !text.contains('\u{1b}'), "{list}: {text}");
    }
    let text = mistake(r#"[{"image": "a"}]"#, &["-t", "v1"]);
    assert!(text.contains("\"tags\" in the file"), "{text}");
}
