//! PAX extended headers (POSIX.1-2017 `pax`, "pax Extended Header").

/// What a PAX header says about the entry after it.
#[derive(Default)]
pub struct Pax {
    pub name: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub sparse: bool,
}

/// Reads PAX records, `LENGTH KEY=VALUE\n` each. The length is used because a value may contain
/// line ends.
pub fn parse(mut records: &[u8]) -> Option<Pax> {
    let mut pax = Pax::default();
    let mut sparse_name = None;
    // Some programs pad with zeros.
    while records.first().is_some_and(|&byte| byte != 0) {
        let space = records.iter().take(8).position(|&byte| byte == b' ')?;
        let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
        let record = records.get(space + 1..length)?.strip_suffix(b"\n")?;
        records = &records[length..];
        let equals = record.iter().position(|&byte| byte == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => pax.name = non_empty(value),
            b"linkpath" => pax.link = non_empty(value),
            b"size" => pax.size = Some(std::str::from_utf8(value).ok()?.parse().ok()?),
            b"GNU.sparse.name" => sparse_name = non_empty(value),
            _ => {}
        }
        pax.sparse |= key.starts_with(b"GNU.sparse.");
    }
    if sparse_name.is_some() {
        pax.name = sparse_name;
    }
    Some(pax)
}

fn non_empty(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}
