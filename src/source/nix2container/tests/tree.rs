//! The order and the names of the files in a layer, and the errors for files that cannot be in one
//! layer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::layer_of;
use crate::source::tar::Tar;
use crate::source::wrapping::Wrapping;

/// A store with these files in it; those that end with a slash are folders.
fn store(files: &[&str]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        fs::create_dir_all(if file.ends_with('/') { &path } else { path.parent().unwrap() })
            .unwrap();
        if !file.ends_with('/') {
            fs::write(path, file).unwrap();
        }
    }
    folder
}

fn rewritten(path: &Path, regex: &str, repl: &str) -> Value {
    json!({"path": path, "options": {"rewrite": {"regex": regex, "repl": repl}}})
}

/// Renames `path` to `repl`, as `copyToRoot` does.
fn as_root(path: &Path, repl: &str) -> Value {
    rewritten(path, &format!("^{}", path.display()), repl)
}

/// The same with an expression that must be applied to each file.
fn as_root_by_force(path: &Path, repl: &str) -> Value {
    rewritten(path, &format!("^({})", path.display()), repl)
}

fn with_perms(path: &Path, perms: Value) -> Value {
    json!({"path": path, "options": {"perms": perms}})
}

fn names(layer: &[u8]) -> Vec<String> {
    let mut tar = Tar::new(layer, "".into(), Wrapping::None);
    let mut names = Vec::new();
    while let Some(entry) = tar.next_entry().unwrap() {
        names.push(entry.name);
    }
    assert!(!tar.is_cut_off());
    names
}

/// The names in the layer of these paths.
fn names_of(paths: Value) -> Vec<String> {
    names(&layer_of(paths).unwrap())
}

#[test]
fn files_come_part_by_part_after_the_folders_that_lead_to_them() {
    let store = store(&["b/a/x", "b/a-b", "b/a.b", "b/a b", "b/Z", "b/é", "b/a/\u{1}", "a/y/"]);
    let [a, b] = ["a", "b"].map(|name| store.path().join(name));
    assert_eq!(
        names_of(json!([as_root(&b, "/to/b"), as_root(&a, "/to/a")])),
        [
            "/",
            "/to",
            "/to/a",
            "/to/a/y",
            "/to/b",
            "/to/b/Z",
            "/to/b/a",
            "/to/b/a/\u{1}",
            "/to/b/a/x",
            "/to/b/a b",
            "/to/b/a-b",
            "/to/b/a.b",
            "/to/b/é"
        ]
    );
    // An empty name leaves out the path itself. For a relative name, the root is not added.
    assert_eq!(names_of(json!([as_root(&a, "")])), ["/", "/y"]);
    assert_eq!(names_of(json!([as_root(&a.join("y"), "")])), [""; 0]);
    assert_eq!(names_of(json!([as_root(&a, "to/it")])), ["to", "to/it", "to/it/y"]);
    assert_eq!(names_of(json!([as_root(&a, "/")])), ["/", "/y"]);
}

#[test]
fn every_file_by_itself_gives_the_same_as_a_folder_at_a_time() {
    let store = store(&["a/bin/x", "a/bin/z/q", "a/bin-b", "b/bin/y", "b/lib/", "b/share/doc"]);
    symlink("x", store.path().join("b/bin/w")).unwrap();
    let [a, b] = ["a", "b"].map(|name| store.path().join(name));
    for repl in ["", "/usr", "/"] {
        let lazily = layer_of(json!([as_root(&a, repl), as_root(&b, repl)])).unwrap();
        let forced = json!([as_root_by_force(&a, repl), as_root_by_force(&b, repl)]);
        assert_eq!(names(&lazily), names(&layer_of(forced.clone()).unwrap()));
        assert_eq!(lazily, layer_of(forced).unwrap());
        let mixed = json!([as_root_by_force(&b, repl), as_root(&a, repl)]);
        assert_eq!(lazily, layer_of(mixed).unwrap());
    }
    let plain = layer_of(json!([{"path": a}, {"path": b}])).unwrap();
    let forced = json!([rewritten(&a, "(/)", "$1"), rewritten(&b, "(/)", "$1")]);
    assert_eq!(plain, layer_of(forced).unwrap());
}

#[test]
fn of_two_files_with_one_name_the_later_counts() {
    let store = store(&["a/x", "b/x"]);
    let [a, b] = ["a", "b"].map(|name| store.path().join(name));
    let content = |paths| String::from_utf8(layer_of(paths).unwrap()).unwrap();
    for (first, last, expected) in [(&a, &b, "b/x"), (&b, &a, "a/x")] {
        for paths in [
            json!([as_root(first, ""), as_root(last, "")]),
            json!([as_root_by_force(first, ""), as_root(last, "")]),
            json!([as_root(first, ""), as_root_by_force(last, "")]),
        ] {
            assert!(content(paths.clone()).contains(expected), "{paths}");
            assert_eq!(names_of(paths), ["/", "/x"]);
        }
    }
}

#[test]
fn files_that_cannot_have_one_name_are_told_of() {
    let store = store(&["a/x", "b/x", "long/x/", "c/x"]);
    fs::write(store.path().join("c/x"), "another length").unwrap();
    let path = |name| store.path().join(name);
    let both = |other| layer_of(json!([as_root(&path("a"), ""), as_root(&path(other), "")]));
    let text = |told: &str| format!("/x\" and \"{}/{told}", store.path().display());
    let error = both("long").unwrap_err();
    assert!(error.contains(&text("long/x\" are both to become \"/x\", and differ in permissions")));
    let error = both("c").unwrap_err();
    assert!(error.contains(&text("c/x\" are both to become \"/x\", and differ in length")));
    let mut one = as_root(&path("a"), "");
    one["options"]["perms"] = json!([{"regex": "x"}]);
    let error = layer_of(json!([one, as_root(&path("b"), "")])).unwrap_err();
    assert!(error.contains(&text("b/x\" are both to become \"/x\", and differ in `perms`")));
    let mut other = as_root(&path("b"), "");
    other["options"]["perms"] = one["options"]["perms"].clone();
    assert!(layer_of(json!([one, other])).is_ok());
}

#[test]
fn a_wrong_option_is_named_with_the_layer() {
    let store = store(&["a/x"]);
    let path = store.path().join("a");
    let begin = format!("FILE: layer 1, of {path:?}: ");
    for (paths, expected) in [
        (rewritten(&path, "(", ""), "its regular expression \"(\" is wrong: unclosed group"),
        (rewritten(&path, "^.*$", "a\0"), "its rewrites make a name of"),
        (rewritten(&path, "^.*$", &"a/".repeat(3000)), "its rewrites make a name of"),
        (with_perms(&path, json!([{"regex": "["}])), "its regular expression \"[\" is wrong"),
        (with_perms(&path, json!([{"regex": "", "mode": "x"}])), "its mode \"x\" is not one"),
        (with_perms(&path, json!([{"regex": "", "uname": "\0"}])), "its user or group \"\\0\""),
        (
            with_perms(&path, (0..300).map(|n| json!({"regex": n.to_string()})).collect()),
            "its `perms` have more than 256 different regular expressions",
        ),
    ] {
        let error = layer_of(json!([paths])).unwrap_err();
        assert!(error.starts_with(&format!("{begin}{expected}")), "{error}\n{begin}{expected}");
    }
    rustix::fs::mknodat(
        rustix::fs::CWD,
        path.join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let error = layer_of(json!([{"path": path}])).unwrap_err();
    assert!(error.contains("/a/pipe\" is neither a file nor a directory nor a symlink"), "{error}");
}

#[test]
fn names_are_held_up_to_a_limit_only() {
    // Each of these files is moved into hundreds of nested folders.
    let files: Vec<_> = (0..200).map(|n| format!("a/{n}")).collect();
    let store = store(&files.iter().map(String::as_str).collect::<Vec<_>>());
    let path = store.path().join("a");
    let deep = format!("{}$0", "$1/".repeat(600));
    let paths = json!([rewritten(&path, "^.*/([0-9]+)$", &deep)]);
    let error = layer_of(paths).unwrap_err();
    assert!(error.contains("its files take more than 96 MiB of memory to be put in order"));
}
