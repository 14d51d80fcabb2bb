//! Shell completions, driven in real shells.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::run::{Pushimg, finish};

/// The completion script for a shell, in a file.
fn script(pushimg: &Pushimg, shell: &str) -> String {
    let output = pushimg.run(["completions", shell]).success();
    let path = pushimg.home().join(shell);
    std::fs::write(&path, output.stdout).expect("a script");
    path.to_str().expect("a path in UTF-8").to_owned()
}

fn run(shell: &str, arguments: &[&str], home: &Path) -> String {
    let mut command = Command::new(shell);
    command.args(arguments).env("HOME", home).current_dir(home);
    finish(command, None, Duration::from_secs(30)).success().stdout
}

#[test]
fn bash_completes_options_values_commands_and_files() {
    let pushimg = Pushimg::new();
    let script = script(&pushimg, "bash");
    std::fs::write(pushimg.home().join("result-amd64"), "").expect("a file");
    let complete = |words: &str| {
        let ask =
            "source \"$1\"; read -ra COMP_WORDS <<<\"$2\"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
             _pushimg pushimg \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD - 1]}\"
             printf '%s\\n' \"${COMPREPLY[@]}\"";
        run("bash", &["--norc", "-c", ask, "bash", &script, words], pushimg.home())
    };
    assert_eq!(complete("pushimg --comp"), "--compression\n--compression-level\n");
    assert_eq!(complete("pushimg --format o"), "oci\n");
    assert_eq!(complete("pushimg insp"), "inspect\n");
    assert_eq!(complete("pushimg result r.io/app --dry"), "--dry-run\n");
    assert_eq!(complete("pushimg inspect --ag"), "--against\n");
    assert_eq!(complete("pushimg --digest-file result-a"), "result-amd64\n");
}

#[test]
fn fish_completes_options_values_commands_and_files() {
    let pushimg = Pushimg::new();
    let script = script(&pushimg, "fish");
    std::fs::write(pushimg.home().join("result-amd64"), "").expect("a file");
    let complete = |line: &str| {
        let ask = "source $argv[1]; complete --do-complete $argv[2]";
        run("fish", &["--no-config", "-c", ask, &script, line], pushimg.home())
    };
    let first = |text: String| text.split(['\t', '\n']).next().unwrap_or_default().to_owned();
    assert!(complete("pushimg --comp").contains("--compression-level\tCompression level"));
    assert_eq!(first(complete("pushimg --format o")), "oci");
    assert!(complete("pushimg result r.io/app --dry").starts_with("--dry-run\t"));
    assert_eq!(complete("pushimg resu"), "result-amd64\n");
    assert!(complete("pushimg insp").starts_with("inspect\tShow what is in an image"));
    assert!(complete("pushimg inspect --ag").starts_with("--against\t"));
    assert_eq!(first(complete("pushimg --digest-file result-a")), "result-amd64");
}

#[test]
fn every_shell_has_a_script() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = Pushimg::new().run(["completions", shell]).success().stdout;
        assert!(script.contains("trust-annotations"), "{shell}");
    }
}

#[test]
fn man_pages_go_to_a_folder() {
    let pushimg = Pushimg::new();
    let folder = pushimg.home().join("man/man1");
    let output = pushimg.run(["man", folder.to_str().expect("UTF-8")]).success();
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("", ""));
    assert!(folder.join("pushimg.1").is_file() && folder.join("pushimg-inspect.1").is_file());
    let file = pushimg.home().join("man/man1/pushimg.1");
    pushimg.run(["man", file.to_str().expect("UTF-8")]).exits(1).says("cannot write the man pages");
}
