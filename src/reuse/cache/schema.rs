//! The tables of the cache, and how many rows of each are kept.
//!
//! `used` is in milliseconds since 1970. It is renewed at most once a day, so that a push without
//! changes writes nothing.

/// A table. Every table also has the column `used`.
pub(super) struct CacheTable {
    pub(super) name: &'static str,
    /// Its columns except `used`.
    columns: &'static str,
    pub(super) key: &'static str,
    /// The columns whose values may be long. Their bytes are counted.
    long: &'static [&'static str],
}

/// Which blob a recipe made of a layer.
const LAYER: CacheTable = CacheTable {
    name: "layer",
    columns: "diff_id TEXT NOT NULL, recipe TEXT NOT NULL, digest TEXT NOT NULL,
              size INTEGER NOT NULL, compression TEXT NOT NULL, sum TEXT NOT NULL",
    key: "diff_id, recipe, digest",
    long: &[],
};

/// Which diff ID the layer with a key has.
const MADE: CacheTable = CacheTable {
    name: "made",
    columns: "layer_key TEXT NOT NULL, diff_id TEXT NOT NULL, sum TEXT NOT NULL",
    key: "layer_key, diff_id",
    long: &[],
};

/// Which repositories of a registry have a blob.
const BLOB_IN: CacheTable = CacheTable {
    name: "blob_in",
    columns: "registry TEXT NOT NULL, digest TEXT NOT NULL, repository TEXT NOT NULL",
    key: "registry, digest, repository",
    long: &[],
};

/// Which images are in a file that never changes.
const IMAGE: CacheTable = CacheTable {
    name: "image",
    columns: "file TEXT NOT NULL, contents TEXT NOT NULL, configs BLOB NOT NULL, sum TEXT NOT NULL",
    key: "file",
    long: &["contents", "configs"],
};

/// The configs of images that were pushed.
const CONFIG: CacheTable = CacheTable {
    name: "config",
    columns: "digest TEXT NOT NULL, config BLOB NOT NULL",
    key: "digest",
    long: &["config"],
};

/// How much is kept. Beyond that, the least recently used rows are deleted.
pub(super) struct Limits {
    /// Rows of `layer`; the same limit applies to `made`.
    pub(super) layers: u64,
    /// Rows of `blob_in`.
    pub(super) blobs: u64,
    /// Rows of `image`; the same limit applies to `config`.
    pub(super) images: u64,
    /// Bytes in the long columns of `image`; the same limit applies to `config`.
    pub(super) bytes: u64,
}

impl Default for Limits {
    /// Together about 200 MB on disk.
    fn default() -> Self {
        Self { layers: 100_000, blobs: 200_000, images: 500, bytes: 64 << 20 }
    }
}

impl Limits {
    /// The tables, each with its maximum rows and bytes, and how many rows to delete at a time.
    pub(super) fn of_tables(&self) -> [(CacheTable, u64, u64, u64); 5] {
        [
            (LAYER, self.layers, u64::MAX, 500),
            (MADE, self.layers, u64::MAX, 500),
            (BLOB_IN, self.blobs, u64::MAX, 500),
            (IMAGE, self.images, self.bytes, 1),
            (CONFIG, self.images, self.bytes, 1),
        ]
    }
}

/// The SQL that creates the tables. `tally` counts rows and bytes, because otherwise SQLite would
/// have to read a whole table to count them.
pub(super) fn create() -> String {
    let mut sql = "CREATE TABLE tally (
            name TEXT NOT NULL PRIMARY KEY, rows INTEGER NOT NULL, bytes INTEGER NOT NULL
        ) WITHOUT ROWID;"
        .to_owned();
    for CacheTable { name, columns, key, long } in [LAYER, MADE, BLOB_IN, IMAGE, CONFIG] {
        let bytes = |row: &str| -> String {
            long.iter().map(|column| format!(" + length({row}.{column})")).collect()
        };
        let (new, old) = (bytes("new"), bytes("old"));
        // Searching a table without row ids is slow if its rows are long.
        let without_row_id = if long.is_empty() { "WITHOUT ROWID" } else { "" };
        sql += &format!(
            "CREATE TABLE {name} ({columns}, used INTEGER NOT NULL, PRIMARY KEY ({key}))
                 {without_row_id};
             CREATE INDEX {name}_used ON {name} (used);
             INSERT INTO tally VALUES ('{name}', 0, 0);
             CREATE TRIGGER {name}_added AFTER INSERT ON {name} BEGIN
                 UPDATE tally SET rows = rows + 1, bytes = bytes + (0{new}) WHERE name = '{name}';
             END;
             CREATE TRIGGER {name}_gone AFTER DELETE ON {name} BEGIN
                 UPDATE tally SET rows = rows - 1, bytes = bytes - (0{old}) WHERE name = '{name}';
             END;"
        );
        if !long.is_empty() {
            sql += &format!(
                "CREATE TRIGGER {name}_changed AFTER UPDATE OF {} ON {name} BEGIN
                     UPDATE tally SET bytes = bytes + (0{new}) - (0{old}) WHERE name = '{name}';
                 END;",
                long.join(", ")
            );
        }
    }
    sql
}
