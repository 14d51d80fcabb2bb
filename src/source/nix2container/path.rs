//! Cleans paths as Go's `filepath.Clean` does. It uses only their bytes, not the file system.

/// The shortest equivalent path. It has no empty part and no `.`, and `..` only at the beginning of
/// a relative path.
pub fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|&byte| byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let parts = parts.join(&b'/');
    match (rooted, parts.is_empty()) {
        (true, _) => [b"/", parts.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => parts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_cleaned_as_go_does_it() {
        for (path, cleaned) in [
            ("", "."),
            (".", "."),
            ("/", "/"),
            ("//", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/../a", "/a"),
            ("a//b/./c/", "a/b/c"),
            ("a/..", "."),
            ("a/../..", ".."),
            ("../../a", "../../a"),
            ("/a/b/../../../c", "/c"),
            ("../a/../b", "../b"),
        ] {
            assert_eq!(clean(path.as_bytes()), cleaned.as_bytes(), "{path}");
        }
    }
}
