//! `conf.json`, which says what an image is made of.
//!
//! Input: its JSON, and the version of the script. Output: a [`Conf`]. Every field that the script
//! needs is checked; other fields are ignored.

use std::path::PathBuf;
use std::time::SystemTime;

use super::super::error::Error;
use super::header::FilesOwner;
use super::json::{UnwritableJson, Value};
use super::refusal::Refusal;
use super::script::Version;
use super::time::{self, PythonTime};
use crate::image::MAX_LAYERS;

/// The longest conf that is read. The conf of an image with ten thousand store paths has 1 MB.
pub const MAX_CONF_BYTES: u64 = 8 << 20;

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Conf {
    pub architecture: String,
    /// The `config` of the image's config, an object.
    pub config: Value,
    pub created: PythonTime,
    pub owner: FilesOwner,
    pub repo_tag: String,
    pub from_image: Option<PathBuf>,
    /// The store paths of each layer, absolute and without `.`, `..` or doubled slashes.
    pub store_layers: Vec<Vec<String>>,
    pub customisation_layer: String,
}

/// What is wrong with a conf: pushimg does not understand it, or it is broken. The text says why.
pub enum ConfFault {
    Unknown(String),
    Broken(String),
}

impl ConfFault {
    fn unknown(what: impl Into<String>) -> Self {
        Self::Unknown(format!("in its conf.json, {}", what.into()))
    }

    /// Converts this to a [`Refusal`]. `broken` makes the error for a broken conf.
    pub fn or_error(self, broken: impl FnOnce(String) -> Error) -> Refusal {
        match self {
            Self::Unknown(why) => Refusal::Unknown(why),
            Self::Broken(what) => Refusal::Broken(broken(what)),
        }
    }
}

/// Reads a conf.
pub fn parse(json: &[u8], version: Version, now: SystemTime) -> Result<Conf, ConfFault> {
    let value = Value::parse(json)
        .map_err(|error| ConfFault::Broken(format!("it is not JSON: {error}")))?;
    if !matches!(value, Value::Map(_)) {
        return Err(ConfFault::Broken("it is not a JSON object".into()));
    }
    let conf = ConfFields(&value);

    let config = conf.value("config")?.clone();
    if !matches!(config, Value::Map(_)) {
        return Err(ConfFault::Broken("its field \"config\" is not an object".into()));
    }
    // Check that the config can be written.
    match config.dumps() {
        Ok(_) => {}
        Err(UnwritableJson::OtherNumber) => {
            return Err(ConfFault::unknown(
                "\"config\" holds a number that Python writes its own way",
            ));
        }
        Err(UnwritableJson::TooLong(length)) => {
            let what = format!("is {length} bytes long as JSON, longer than any image's");
            return Err(conf.broken("config", &what));
        }
    }
    let created = conf.time("created", now)?;
    let mtime =
        if version >= Version::Mtime { conf.time("mtime", now)?.seconds } else { created.seconds };
    let owner = if version >= Version::Owner {
        FilesOwner {
            mtime,
            uid: conf.number("uid")?,
            gid: conf.number("gid")?,
            uname: conf.text("uname")?.to_owned(),
            gname: conf.text("gname")?.to_owned(),
        }
    } else {
        FilesOwner { mtime, uid: 0, gid: 0, uname: "root".into(), gname: "root".into() }
    };
    let from_image = match conf.0.get("from_image") {
        Some(Value::Text(path)) => Some(PathBuf::from(path)),
        Some(Value::Null) => None,
        Some(_) => return Err(conf.broken("from_image", "is neither null nor a path")),
        None => return Err(conf.broken("from_image", "is missing")),
    };
    let store_dir =
        if version >= Version::StoreDir { conf.text("store_dir")? } else { "/nix/store/" };
    let store_layers = conf.store_layers(store_dir)?;
    let customisation_layer = conf.text("customisation_layer")?.to_owned();
    is_clear(&customisation_layer)?;
    Ok(Conf {
        architecture: conf.text("architecture")?.to_owned(),
        config,
        created,
        owner,
        repo_tag: conf.text("repo_tag")?.to_owned(),
        from_image,
        store_layers,
        customisation_layer,
    })
}

/// The fields of a conf.
struct ConfFields<'a>(&'a Value);

impl<'a> ConfFields<'a> {
    fn broken(&self, field: &str, what: &str) -> ConfFault {
        ConfFault::Broken(format!("its field {field:?} {what}"))
    }

    fn value(&self, field: &str) -> Result<&'a Value, ConfFault> {
        self.0.get(field).ok_or_else(|| self.broken(field, "is missing"))
    }

    fn text(&self, field: &str) -> Result<&'a str, ConfFault> {
        match self.value(field)? {
            Value::Text(text) => Ok(text),
            _ => Err(self.broken(field, "is not a string")),
        }
    }

    /// A number, or the digits of one.
    fn number(&self, field: &str) -> Result<i64, ConfFault> {
        let number = match self.value(field)? {
            Value::Natural(number) => i64::try_from(*number).ok(),
            Value::Negative(number) => Some(*number),
            // Python also accepts spaces, underscores and digits of other scripts in a number;
            // these are not supported here.
            Value::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                text.parse().ok()
            }
            _ => None,
        };
        number.ok_or_else(|| ConfFault::unknown(format!("{field:?} is an unusual number")))
    }

    fn time(&self, field: &str, now: SystemTime) -> Result<PythonTime, ConfFault> {
        match self.text(field)? {
            "now" => Ok(time::now(now)),
            text => time::parse(text)
                .ok_or_else(|| ConfFault::unknown(format!("{field:?} is an unusual time"))),
        }
    }

    fn store_layers(&self, store_dir: &str) -> Result<Vec<Vec<String>>, ConfFault> {
        let no_list = || self.broken("store_layers", "is not a list of lists of paths");
        let Value::List(layers) = self.value("store_layers")? else {
            return Err(no_list());
        };
        if layers.len() >= MAX_LAYERS {
            return Err(self.broken("store_layers", "has more layers than any image"));
        }
        let path = |value: &Value| {
            let Value::Text(path) = value else {
                return Err(no_list());
            };
            if !path.starts_with(store_dir) {
                let what = format!("names {path:?}, which is not in {store_dir:?}");
                return Err(self.broken("store_layers", &what));
            }
            is_clear(path)?;
            Ok(path.clone())
        };
        let layer = |value: &Value| match value {
            Value::List(paths) => paths.iter().map(path).collect(),
            _ => Err(no_list()),
        };
        layers.iter().map(layer).collect()
    }
}

/// Fails if Python could print the path in another form, or change it.
fn is_clear(path: &str) -> Result<(), ConfFault> {
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    let is_whole = path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_plain));
    if is_whole && path.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Ok(());
    }
    Err(ConfFault::unknown(format!("the path {path:?} is an unusual one")))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use serde_json::{Value as Json, json};

    use super::*;

    fn whole() -> Json {
        json!({
            "architecture": "arm64",
            "config": {"Cmd": ["/bin/app"]},
            "created": "1970-01-01T00:00:01+00:00",
            "customisation_layer": "/nix/store/x-customisation-layer",
            "from_image": null,
            "gid": "100",
            "gname": "users",
            "mtime": "now",
            "repo_tag": "app:v1",
            "store_dir": "/nix/store",
            "store_layers": [["/nix/store/x-glibc"], ["/nix/store/y", "/nix/store/z"], []],
            "uid": 1000,
            "uname": "user",
            "something new": 1.5,
        })
    }

    fn read_as(version: Version, conf: &Json) -> Result<Conf, String> {
        let now = UNIX_EPOCH + Duration::from_millis(2500);
        parse(conf.to_string().as_bytes(), version, now).map_err(|fault| match fault {
            ConfFault::Unknown(why) => format!("unclear: {why}"),
            ConfFault::Broken(what) => what,
        })
    }

    fn read(conf: &Json) -> Result<Conf, String> {
        read_as(Version::RepoTag, conf)
    }

    #[test]
    fn a_conf_is_read_and_what_is_unknown_is_ignored() {
        let conf = read(&whole()).unwrap();
        assert_eq!(conf.architecture, "arm64");
        assert_eq!(conf.created.seconds, 1);
        let (uname, gname) = ("user".into(), "users".into());
        assert_eq!(conf.owner, FilesOwner { mtime: 2, uid: 1000, gid: 100, uname, gname });
        assert_eq!(conf.store_layers[1], ["/nix/store/y", "/nix/store/z"]);
        assert_eq!((conf.repo_tag.as_str(), conf.from_image), ("app:v1", None));
    }

    #[test]
    fn older_confs_lack_what_their_scripts_do_not_need() {
        let mut older = whole();
        for field in ["uid", "gid", "uname", "gname", "mtime", "store_dir"] {
            older.as_object_mut().unwrap().remove(field);
        }
        let owner = read_as(Version::FromImage, &older).unwrap().owner;
        let root = || "root".to_owned();
        assert_eq!(owner, FilesOwner { mtime: 1, uid: 0, gid: 0, uname: root(), gname: root() });
        let error = read_as(Version::StoreDir, &older).unwrap_err();
        assert_eq!(error, "its field \"store_dir\" is missing");
    }

    #[test]
    fn a_field_that_is_missing_or_another_thing_is_named() {
        for field in whole().as_object().unwrap().keys().filter(|key| *key != "something new") {
            let mut conf = whole();
            conf.as_object_mut().unwrap().remove(field);
            let error = read(&conf).unwrap_err();
            assert_eq!(error, format!("its field {field:?} is missing"));
            conf[field] = json!([7]);
            let error = read(&conf).unwrap_err();
            assert!(error.contains(&format!("{field:?} is ")), "{error}");
        }
        for (json, expected) in [("", "it is not JSON: "), ("[]", "it is not a JSON object")] {
            let fault = parse(json.as_bytes(), Version::RepoTag, UNIX_EPOCH).unwrap_err();
            assert!(matches!(fault, ConfFault::Broken(what) if what.starts_with(expected)));
        }
    }

    #[test]
    fn what_python_would_treat_its_own_way_is_left_to_it() {
        for (field, value) in [
            ("config", json!({"x": 1.5})),
            ("created", json!("yesterday")),
            ("mtime", json!("1970-01-01T00:00:01")),
            ("uid", json!(" 7")),
            ("gid", json!("-1")),
            ("gid", json!("99999999999999999999")),
            ("store_layers", json!([["/nix/store/../x"]])),
            ("store_layers", json!([["/nix/store//x"]])),
            ("store_layers", json!([["/nix/store/x/"]])),
            ("store_layers", json!([["/nix/store/é"]])),
            ("customisation_layer", json!("x")),
        ] {
            let mut conf = whole();
            conf[field] = value.clone();
            let error = read(&conf).unwrap_err();
            assert!(error.starts_with("unclear: "), "{value}: {error}");
        }
        let mut conf = whole();
        conf["store_layers"] = json!([["/etc/passwd"]]);
        let error = read(&conf).unwrap_err();
        assert!(error.contains("\"/etc/passwd\", which is not in \"/nix/store\""), "{error}");
    }
}
