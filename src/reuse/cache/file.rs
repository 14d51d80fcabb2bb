//! The cache's file: where it is, whether it is a whole cache file, and how it is replaced.
//!
//! SQLite must never have its files removed while they are open: another process would mix the old
//! ones with the new. So every user of the database holds a shared lock on `cache.lock`, and files
//! are removed or created only under an exclusive lock. The kernel releases the lock when a process
//! dies.

use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, MAIN_DB, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::schema;

/// How long to wait for another process before going on without a cache.
const BUSY_TIMEOUT: Duration = Duration::from_millis(100);

/// Marks every cache file in its header ("push"), so that a database of another program is not
/// touched.
const APPLICATION_ID: i32 = 0x7075_7368;

/// The schema's version. A file with a newer one belongs to a newer pushimg and is left alone.
const VERSION: i32 = 2;

/// What to do with a file that exists.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// Use it if it is whole.
    Keep,
    /// Replace it, because a query found that it is damaged.
    Replace,
}

/// An open cache file.
pub(super) struct OpenDatabase {
    pub(super) connection: Connection,
    /// Held as long as the connection is open; `None` if the folder is read-only.
    pub(super) lock: Option<File>,
    pub(super) writable: bool,
    /// A message for the user, if there is one.
    pub(super) note: Option<String>,
}

impl OpenDatabase {
    fn new(connection: Connection, lock: Option<File>, note: Option<String>, path: &Path) -> Self {
        let writable = !connection.is_readonly(MAIN_DB).unwrap_or(true);
        Self {
            connection,
            lock,
            writable,
            note: note.or_else(|| {
                (!writable).then(|| format!("local cache {}: read-only", path.display()))
            }),
        }
    }
}

/// Why a file is not used.
enum Unusable {
    /// It is missing, or was not completed.
    Missing,
    /// It is damaged, or of an older version.
    Damaged(String),
    /// It belongs to another program or a newer version and must not be touched.
    LeftAlone(String),
}

pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join("cache.sqlite")
}

/// Opens the cache in `folder`. Creates the folder and the file if they are missing, and replaces a
/// damaged file. The error is a note for the user.
pub(super) fn open(folder: &Path, existing: Existing) -> Result<OpenDatabase, String> {
    let path = database(folder);
    let unusable =
        |why: &dyn std::fmt::Display| format!("no local cache: {}: {why}", path.display());
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| unusable(&error))?;
    let Some(lock) = open_lock(folder).map_err(|error| unusable(&error))? else {
        return match open_existing(&path) {
            Ok(connection) => Ok(OpenDatabase::new(connection, None, None, &path)),
            Err(Unusable::Missing) => Err(unusable(&"the folder is read-only")),
            Err(Unusable::Damaged(why) | Unusable::LeftAlone(why)) => Err(unusable(&why)),
        };
    };

    let give_up = Instant::now() + BUSY_TIMEOUT;
    let mut replace = existing == Existing::Replace;
    let mut forced = replace;
    let mut made = false;
    let mut note = None;
    loop {
        let operation = if replace {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match flock(&lock, operation) {
            Ok(()) if forced => {
                make(&path).map_err(|why| unusable(&why))?;
                (replace, forced, made) = (false, false, true);
            }
            Ok(()) => match open_existing(&path) {
                // Another process has created the file meanwhile.
                Ok(_) if replace => replace = false,
                Ok(connection) => {
                    return Ok(OpenDatabase::new(connection, Some(lock), note, &path));
                }
                Err(Unusable::LeftAlone(why)) => return Err(unusable(&why)),
                Err(Unusable::Missing | Unusable::Damaged(_)) if replace => forced = true,
                Err(Unusable::Missing) if !made => replace = true,
                Err(Unusable::Damaged(why)) if !made => {
                    note = Some(format!("local cache {}: {why}; made anew", path.display()));
                    replace = true;
                }
                Err(Unusable::Missing) => return Err(unusable(&"it vanished")),
                Err(Unusable::Damaged(why)) => return Err(unusable(&why)),
            },
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => {
                // Release the lock from the previous round, so that other processes need not wait
                // for it.
                let _ = flock(&lock, FlockOperation::Unlock);
                thread::sleep(Duration::from_millis(2));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(unusable(&"another process has it open, or is making it"));
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(unusable(&io::Error::from(error))),
        }
    }
}

/// Opens the lock file. `None` if it does not exist and cannot be created.
fn open_lock(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join("cache.lock");
    let made =
        File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    match made {
        Ok(lock) => Ok(Some(lock)),
        // Permission denied, or a read-only file system.
        Err(_) => match File::open(&path) {
            Ok(lock) => Ok(Some(lock)),
            Err(_) if database(folder).is_file() => Ok(None),
            Err(_) => made.map(Some),
        },
    }
}

fn open_existing(path: &Path) -> Result<Connection, Unusable> {
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(Unusable::LeftAlone("not a file".to_owned()));
        }
        Ok(metadata) if metadata.len() == 0 => return Err(Unusable::Missing),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
        Err(error) => return Err(Unusable::LeftAlone(error.to_string())),
    }
    let opened = Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)
        .and_then(|connection| judge(&connection).map(|verdict| (connection, verdict)));
    let judged = match opened {
        // To read the database, SQLite needs files beside it. They cannot be created in a read-only
        // folder, so open the database as immutable.
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
            ) =>
        {
            open_immutable(path)
        }
        opened => opened,
    };
    match judged {
        Ok((connection, Ok(()))) => Ok(connection),
        Ok((_, Err(refusal))) => Err(refusal),
        Err(error) => Err(match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                Unusable::Damaged(error.to_string())
            }
            _ => Unusable::LeftAlone(error.to_string()),
        }),
    }
}

/// Only one thread uses the connection, and it shares no cache.
const FLAGS: OpenFlags =
    OpenFlags::SQLITE_OPEN_NO_MUTEX.union(OpenFlags::SQLITE_OPEN_PRIVATE_CACHE);

type Judged = rusqlite::Result<(Connection, Result<(), Unusable>)>;

fn open_immutable(path: &Path) -> Judged {
    let url = std::path::absolute(path)
        .ok()
        .and_then(|path| url::Url::from_file_path(path).ok())
        .ok_or_else(|| rusqlite::Error::InvalidPath(path.to_owned()))?;
    let flags = FLAGS | OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("{url}?immutable=1"), flags)?;
    let verdict = judge(&connection)?;
    Ok((connection, verdict))
}

/// Reads the header: is this a cache file of this version?
fn judge(connection: &Connection) -> rusqlite::Result<Result<(), Unusable>> {
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // NORMAL: in WAL mode a power failure may lose the last rows, but does not damage the file.
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL; PRAGMA cell_size_check = ON; PRAGMA trusted_schema = OFF",
    )?;
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application != APPLICATION_ID {
        let tables: u32 =
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        return Ok(Err(if tables == 0 {
            Unusable::Missing
        } else {
            Unusable::LeftAlone("another program's database".to_owned())
        }));
    }
    Ok(match version {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(Unusable::LeftAlone(format!(
            "made by a newer pushimg (version {newer}, this one knows {VERSION})"
        ))),
        _ => Err(Unusable::Damaged(format!("of the older version {version}"))),
    })
}

/// Makes an empty cache file, and removes any that exists. The caller holds the exclusive lock.
fn make(path: &Path) -> Result<(), String> {
    // Remove the database first. If this is interrupted, the remaining files belong to no database.
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error.to_string());
            }
            _ => {}
        }
    }
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| error.to_string())?;
    let fill = || -> rusqlite::Result<String> {
        let connection =
            Connection::open_with_flags(path, FLAGS | OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Do not wait for the disk: losing an empty file in a power failure does no harm.
        connection.execute_batch("PRAGMA synchronous = OFF; PRAGMA auto_vacuum = INCREMENTAL")?;
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
        // In one transaction with the tables, so that a file with this version has all tables.
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;
             {}
             PRAGMA application_id = {APPLICATION_ID};
             PRAGMA user_version = {VERSION};
             COMMIT",
            schema::create()
        ))?;
        Ok(mode)
    };
    match fill() {
        Ok(mode) if mode == "wal" => Ok(()),
        Ok(_) => Err("the file system lacks what SQLite's write-ahead log needs".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
