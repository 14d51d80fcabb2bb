//! What a stream script does, as far as its versions differ.
//!
//! Comes in: the text of nixpkgs' `stream_layered_image.py`. Goes out: the facts that an image's
//! bytes depend on. The script is not interpreted: the statements that matter are looked for, and
//! where one is missing, or another is there that changes what is written, nothing is believed.

use std::path::Path;

use super::Trouble;

/// The longest script that is read; it has some 15 KB.
pub const MAX_SCRIPT_BYTES: u64 = 256 << 10;

/// Versions of Python 3 whose `tarfile` writes the same bytes: older ones fill the device fields of
/// every header, newer ones are not known.
const PYTHONS: std::ops::RangeInclusive<u32> = 9..=14;

/// What differs between the versions of the script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The permissions of `/nix` and `/nix/store`.
    pub store_mode: u32,
    /// Whether the conf says whose the files are; else they are root's.
    pub has_owner: bool,
    /// Whether the conf has an `mtime`; else it is `created`.
    pub has_mtime: bool,
    /// Whether the conf says where the store is; else it is where Nix has it.
    pub has_store_dir: bool,
    /// Whether the conf says which `os` it is for; else it is Linux.
    pub has_os: bool,
    /// Whether there may be a base image.
    pub has_base: bool,
    /// Whether an argument may give the image another name.
    pub has_repo_tag: bool,
}

/// Reads a script. `real_path` is what a path leads to when its links are followed.
pub fn facts(text: &str, real_path: impl Fn(&str) -> Option<String>) -> Result<Facts, Trouble> {
    let first = text.lines().next().unwrap_or_default();
    let interpreter = first.strip_prefix("#!").map_or("", str::trim);
    let version = python_version(interpreter)
        .or_else(|| python_version(&real_path(interpreter)?))
        .filter(|version| PYTHONS.contains(version));
    if version.is_none() {
        return Err(unclear(&format!("the interpreter {interpreter:?} is not a known Python")));
    }
    let lines = code(text);
    let (store_mode, has_owner) = layers(&lines)?;

    let whole = squeezed(lines.iter().map(String::as_str));
    require(&whole, MARKS_OF_THE_WHOLE)?;
    if has_owner {
        require(&whole, MARKS_OF_OWNERS)?;
    }
    let (has_os, overlays) =
        config(&whole).ok_or_else(|| unclear("the image's config is made in another way"))?;
    let has_base = MARKS_OF_BASES.iter().all(|mark| whole.contains(mark));
    if overlays != has_base {
        return Err(unclear("base images are read in another way"));
    }
    one_of(
        &whole,
        &[
            ("created=parse_time(conf[\"created\"])", ()),
            ("ifconf[\"created\"]==\"now\"elsedatetime.fromisoformat(conf[\"created\"])", ()),
        ],
    )?;
    let mtimes = [
        ("mtime=int(parse_time(conf[\"mtime\"]).timestamp())", true),
        ("mtime=int(created.timestamp())", false),
    ];
    let names = [
        ("\"RepoTags\":[args.repo_tagorconf[\"repo_tag\"]]", true),
        ("\"RepoTags\":[conf[\"repo_tag\"]]", false),
    ];
    Ok(Facts {
        store_mode,
        has_owner,
        has_mtime: one_of(&whole, &mtimes)?,
        has_store_dir: whole.contains("store_dir=conf[\"store_dir\"]"),
        has_os,
        has_base,
        has_repo_tag: one_of(&whole, &names)?,
    })
}

/// The permissions of the store's folders, and whether the conf says whose all files are.
fn layers(lines: &[String]) -> Result<(u32, bool), Trouble> {
    let function = function(lines).ok_or_else(|| unclear("no function archives paths"))?;
    let whole = squeezed(function.iter().copied());
    require(&whole, MARKS_OF_LAYERS)?;
    // The two folders, and a file with content and without.
    if whole.matches("tar.add").count() != 4 || whole.matches("tarfile.open").count() != 1 {
        return Err(unclear("a tar is written in another way"));
    }
    let store_mode = one_of(&whole, &[("ti.mode=0o0755", 0o755), ("ti.mode=0o0555", 0o555)])?;
    let has_owner = one_of(&whole, &[("ti.uid=uid", true), ("ti.uid=0", false)])?;
    let mut owner: Vec<&str> = if has_owner {
        vec!["ti.uid=uid", "ti.gid=gid", "ti.uname=uname", "ti.gname=gname"]
    } else {
        vec!["ti.uid=0", "ti.gid=0", "ti.uname=\"root\"", "ti.gname=\"root\""]
    };
    for line in function {
        let line = squeezed([line].into_iter());
        if !line.split("ti.").skip(1).any(is_assignment) || KNOWN_SETTINGS.contains(&&*line) {
            continue;
        }
        let Some(place) = owner.iter().position(|setting| *setting == line) else {
            return Err(unclear(&format!("`{line}` is not known")));
        };
        owner.remove(place);
    }
    match owner[..] {
        [] => Ok((store_mode, has_owner)),
        [missing, ..] => Err(unclear(&format!("there is no `{missing}`"))),
    }
}

fn unclear(what: &str) -> Trouble {
    Trouble::unclear(format!("in its stream script, {what}"))
}

fn require(text: &str, marks: &[&str]) -> Result<(), Trouble> {
    match marks.iter().find(|mark| !text.contains(**mark)) {
        Some(missing) => Err(unclear(&format!("there is no `{missing}`"))),
        None => Ok(()),
    }
}

/// What stands for the one text that occurs.
fn one_of<T: Copy>(text: &str, all: &[(&str, T)]) -> Result<T, Trouble> {
    let mut found = all.iter().filter(|(mark, _)| text.contains(mark)).map(|(_, fact)| *fact);
    match (found.next(), found.next()) {
        (Some(fact), None) => Ok(fact),
        _ => Err(unclear(&format!("there is not `{}`, nor what is known instead", all[0].0))),
    }
}

/// What makes a layer.
const MARKS_OF_LAYERS: &[&str] = &[
    "tarfile.open(fileobj=obj,mode=\"w|\")",
    "tar.addfile(apply_filters(nix_root(dir(\"/nix\"))))",
    "tar.addfile(apply_filters(nix_root(dir(\"/nix/store\"))))",
    "ti.type=tarfile.DIRTYPE",
    "path.is_symlink()",
    "path.rglob(\"*\")",
    "insorted(files)",
    "append_root(tar.gettarinfo(filename))",
    "ti.name=\"/\"+ti.name",
    "ti.mtime=mtime",
    "ifti.islnk()",
    "ti.type=tarfile.REGTYPE",
];

/// What is set of a file, besides its owner.
const KNOWN_SETTINGS: &[&str] = &[
    "ti.name=\"/\"+ti.name",
    "ti.mtime=mtime",
    "ti.mode=0o0755",
    "ti.mode=0o0555",
    "ti.type=tarfile.DIRTYPE",
    "ti.type=tarfile.REGTYPE",
    "ti.linkname=\"\"",
    "ti.size=filename.stat().st_size",
];

/// What makes the rest of an image.
const MARKS_OF_THE_WHOLE: &[&str] = &[
    "conf[\"store_layers\"]",
    "conf[\"customisation_layer\"]",
    "os.path.join(customisation_layer,\"checksum\")",
    "os.path.join(customisation_layer,\"layer.tar\")",
    "paths=[customisation_layer]",
    "datetime.fromisoformat(",
    "json.dumps(image_json,indent=4).encode(\"utf-8\")",
];

/// Where owners come from the conf.
const MARKS_OF_OWNERS: &[&str] = &[
    "uid=int(conf[\"uid\"])",
    "gid=int(conf[\"gid\"])",
    "uname=conf[\"uname\"]",
    "gname=conf[\"gname\"]",
];

/// What puts layers and environment of a base image below those of the image.
const MARKS_OF_BASES: &[&str] = &[
    "load_from_image(conf[\"from_image\"])",
    "from_image.manifest_json[0][\"Layers\"]",
    "from_image.image_json[\"rootfs\"][\"diff_ids\"]",
    "paths=[path]",
    "base_config.get(\"Env\",[])+final_config.get(\"Env\",[])",
    "{entry.split(\"=\",1)[0]:entryforentryinfinal_env}",
];

/// Whether `os` comes from the conf, and whether the config is laid over that of a base image;
/// `None` where the config has not the known fields in the known order.
fn config(whole: &str) -> Option<(bool, bool)> {
    let (_, rest) = whole.split_once("image_json={")?;
    let rest = rest.strip_prefix("\"created\":datetime.isoformat(created),")?;
    let rest = rest.strip_prefix("\"architecture\":conf[\"architecture\"],")?;
    let (os, rest) = rest.strip_prefix("\"os\":")?.split_once(",\"config\":")?;
    let (config, rest) = rest.split_once(",\"rootfs\":")?;
    let rest =
        rest.strip_prefix("{\"diff_ids\":[f\"sha256:{layer.checksum}\"forlayerinlayers],")?;
    let rest = rest.strip_prefix("\"type\":\"layers\"},\"history\":[{")?;
    let rest = rest.strip_prefix("\"created\":datetime.isoformat(created),")?;
    rest.strip_prefix("\"comment\":f\"storepaths:{layer.paths}\"}forlayerinlayers]}")?;
    let has_os = match os {
        "conf[\"os\"]" => true,
        "\"linux\"" => false,
        _ => return None,
    };
    match config {
        "overlay_base_config(from_image,conf[\"config\"])" => Some((has_os, true)),
        "conf[\"config\"]" => Some((has_os, false)),
        _ => None,
    }
}

/// The lines of the function that writes a layer.
fn function(lines: &[String]) -> Option<Vec<&str>> {
    let from = lines.iter().position(|line| line.starts_with("def archive_paths_to("))?;
    let rest = lines[from + 1..].iter().take_while(|line| line.starts_with([' ', ')']));
    Some(lines[from..=from].iter().chain(rest).map(String::as_str).collect())
}

/// Whether `name=…` begins it, and not `name==…` or a call.
fn is_assignment(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let operator = rest.trim_start_matches(['+', '-', '*', '/', '|', '&', '^', '%', '<', '>', '@']);
    operator.starts_with('=') && !(operator.starts_with("==") && operator.len() == rest.len())
}

/// The lines of the program itself: no comments, no texts of several lines.
fn code(text: &str) -> Vec<String> {
    let outside: String = text.split("\"\"\"").step_by(2).collect();
    let without_comment = |line: &str| {
        let comment = if line.trim_start().starts_with('#') { Some(0) } else { line.find(" #") };
        line[..comment.unwrap_or(line.len())].trim_end().to_owned()
    };
    outside.lines().map(without_comment).filter(|line| !line.is_empty()).collect()
}

/// The code without what formatters change: white space, commas before a bracket, kinds of quotes.
fn squeezed<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut text: String =
        lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).collect::<String>();
    text = text.replace('\'', "\"");
    for bracket in [")", "]", "}"] {
        text = text.replace(&format!(",{bracket}"), bracket);
    }
    text
}

/// The 11 of `…-python3-3.11.6/bin/python3` or `…/python3.11`.
fn python_version(path: &str) -> Option<u32> {
    let number = |text: &str| -> Option<u32> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    let name = Path::new(path).file_name()?.to_str()?;
    if let Some(version) = name.strip_prefix("python3.") {
        return number(version);
    }
    let (_, version) = path.split_once("-python3-3.").filter(|_| name.starts_with("python"))?;
    number(version)
}

#[cfg(test)]
mod tests {
    use super::super::tests::SCRIPT;
    use super::*;

    fn read(text: &str) -> Option<Facts> {
        facts(text, |_| None).ok()
    }

    fn newest() -> Facts {
        Facts {
            store_mode: 0o755,
            has_owner: true,
            has_mtime: true,
            has_store_dir: true,
            has_os: false,
            has_base: true,
            has_repo_tag: true,
        }
    }

    /// The script with an interpreter whose name tells its version.
    fn script() -> String {
        SCRIPT.replace("@PYTHON@", "/nix/store/x-python3-3.11.6/bin/python3")
    }

    fn without(what: &str, instead: &str) -> String {
        let script = script();
        assert!(script.contains(what), "{what}");
        script.replace(what, instead)
    }

    #[test]
    fn what_differs_between_versions_is_taken_from_the_script() {
        assert_eq!(read(&script()), Some(newest()));
        let older = script()
            .replace("0o0755", "0o0555")
            .replace("ti.uid = uid", "ti.uid = 0")
            .replace("ti.gid = gid", "ti.gid = 0")
            .replace("ti.uname = uname", "ti.uname = 'root'")
            .replace("ti.gname = gname", "ti.gname = 'root'")
            .replace("parse_time(conf[\"mtime\"]).timestamp()", "created.timestamp()")
            .replace("store_dir = conf[\"store_dir\"]", "store_dir = \"/nix/store/\"")
            .replace("args.repo_tag or conf", "conf");
        let facts = Facts {
            store_mode: 0o555,
            has_owner: false,
            has_mtime: false,
            has_store_dir: false,
            has_repo_tag: false,
            ..newest()
        };
        assert_eq!(read(&older), Some(facts));
        let with_os = without("\"os\": \"linux\"", "\"os\": conf[\"os\"]");
        assert_eq!(read(&with_os), Some(Facts { has_os: true, ..newest() }));
    }

    #[test]
    fn a_script_that_does_something_else_is_not_believed() {
        for (what, instead) in [
            ("0o0755", "0o0700"),
            ("mode=\"w|\"", "mode=\"w|\", format=tarfile.GNU_FORMAT"),
            ("ti.mtime = mtime", "ti.mtime = mtime; ti.mode |= 0o200"),
            ("ti.mtime = mtime", "ti.pax_headers = {}; ti.mtime = mtime"),
            ("ti.uid = uid", "ti.uid = uid + 1 if x else 1"),
            ("sorted(files)", "files"),
            ("\"/nix/store\"", "\"/other/store\""),
            ("indent=4", "indent=2"),
            ("\"os\": \"linux\"", "\"os\": \"windows\""),
            ("\"os\": \"linux\"", "\"os\": \"linux\", \"variant\": \"v8\""),
            ("store paths: ", "paths: "),
            ("final_env}", "reversed(final_env)}"),
            ("def archive_paths_to(", "def archive_paths("),
            ("path.is_symlink()", "False"),
        ] {
            assert_eq!(read(&without(what, instead)), None, "{instead}");
        }
        assert_eq!(read(""), None);
        assert_eq!(read("#!/bin/sh\necho"), None);
    }

    #[test]
    fn only_pythons_that_write_the_same_bytes_are_believed() {
        let with = |python: &str| read(&SCRIPT.replace("@PYTHON@", python)).is_some();
        for python in [
            "/nix/store/x-python3-3.9.18/bin/python3",
            "/nix/store/x-python3-3.12.1-env/bin/python",
            "/usr/bin/python3.13",
            " /nix/store/x-python3-3.11.6/bin/python3.11",
        ] {
            assert!(with(python), "{python}");
        }
        for python in [
            "/nix/store/x-python3-3.8.18/bin/python3",
            "/nix/store/x-python3-3.99.0/bin/python3",
            "/usr/bin/python3.8",
            "/usr/bin/python3",
            "/usr/bin/env python3.11",
            "/nix/store/x-python3-3.11.6/bin/pypy",
            "/usr/bin/python2.7",
            "",
        ] {
            assert!(!with(python), "{python}");
        }
        let linked = SCRIPT.replace("@PYTHON@", "/usr/bin/python3");
        let real = |path: &str| (path == "/usr/bin/python3").then(|| "/usr/bin/python3.11".into());
        assert!(facts(&linked, real).is_ok());
    }
}
