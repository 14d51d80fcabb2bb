//! Fuzz targets for archives: the walk over a tar, decompression, docker archives both ways.

use std::io::{Cursor, Read, Seek, Write};

use super::archive::{self, Contents};
use super::decompress::{self, Stream};
use super::docker_archive::streamed::StreamedArchive;
use super::error::Error;
use super::interface::{Claim, Image, Source};
use super::layout::Layout;
use super::selection::Selection;
use super::tar::{self, BLOCK, Bytes, Tar};
use super::wrapping::{self, Wrapping};
use crate::image::{DiffId, Digest, Hasher};

/// Reads a tar. Its checksums are corrected first, because a wrong checksum would end the reading
/// at once.
pub fn tar(data: &[u8]) {
    let data = mended(data);
    let mut tar = Tar::new(data.as_slice(), "x.tar".into(), Wrapping::None);
    let mut end_of_last = 0;
    loop {
        let entry = match tar.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => return checked(&error),
        };
        assert!(entry.offset >= end_of_last + BLOCK as u64 && entry.offset % BLOCK as u64 == 0);
        end_of_last = entry.offset + entry.size;
        let mut content = Vec::new();
        match tar.read_to_end(&mut content) {
            Ok(_) => {
                assert_eq!(content.len() as u64, entry.size);
                assert!(data[entry.offset as usize..].starts_with(&content));
            }
            Err(error) => return checked(&Error::from_read(error, &entry.name)),
        }
    }
    assert!(!tar.is_cut_off() || end_of_last.next_multiple_of(BLOCK as u64) == data.len() as u64);
}

/// The records of a PAX header.
pub fn pax(data: &[u8]) {
    let mut builder = ::tar::Builder::new(Vec::new());
    append(&mut builder, "x", ::tar::EntryType::XHeader, data);
    append(&mut builder, "name", ::tar::EntryType::Regular, b"content");
    // Writing to a vector does not fail.
    tar(&builder.into_inner().unwrap_or_default());
}

/// Reads a compressed file. If flate2 can read a gzip file, pushimg must read the same content.
pub fn wrapping(data: &[u8]) {
    let wrapping = Wrapping::of(data);
    if wrapping == Wrapping::None {
        return;
    }
    let outcome = unwrapped(stream(data.to_vec(), wrapping));
    if wrapping == Wrapping::Gzip {
        let mut theirs = Vec::new();
        // flate2 also rejects files that pushimg reads: those with data after the last member, or
        // with a wrong checksum in a header.
        let read = flate2::read::MultiGzDecoder::new(data).take(MOST).read_to_end(&mut theirs);
        if read.is_ok() && theirs.len() < MOST as usize {
            assert_eq!(outcome.as_deref().ok(), Some(theirs.as_slice()));
        }
    }
    if let Err(error) = outcome {
        checked(&error);
    }
}

/// Reads a docker archive by seeking and as a stream. If both succeed, the results must be the
/// same.
pub fn archive(data: &[u8]) {
    let data = mended(data);
    let sought = sought(&data).inspect_err(checked);
    let wrapping = Wrapping::of(&data);
    let streamed = StreamedArchive::new(stream(data, wrapping), "x.tar".into(), (wrapping, 0));
    let streamed = walked(Box::new(streamed)).inspect_err(checked);
    if let (Ok(sought), Ok(streamed)) = (sought, streamed) {
        assert_eq!(sought, streamed);
    }
}

/// Reads the `manifest.json` of an otherwise correct archive.
pub fn docker_manifest(data: &[u8]) {
    let layer = [0; 2 * BLOCK];
    let diff_id = Digest::of(&layer);
    let config = format!(r#"{{"rootfs":{{"diff_ids":["{diff_id}"]}}}}"#);
    let mut builder = ::tar::Builder::new(Vec::new());
    for (name, content) in
        [("l.tar", layer.as_slice()), ("c.json", config.as_bytes()), ("manifest.json", data)]
    {
        append(&mut builder, name, ::tar::EntryType::Regular, content);
    }
    // Writing to a vector does not fail.
    let data = builder.into_inner().unwrap_or_default();
    let sought = sought(&data).inspect_err(checked);
    let streamed =
        StreamedArchive::new(stream(data, Wrapping::None), "x.tar".into(), (Wrapping::None, 0));
    let streamed = walked(Box::new(streamed)).inspect_err(checked);
    assert_eq!(sought.ok(), streamed.ok());
}

/// The most bytes that are unpacked, because of decompression bombs.
const MOST: u64 = 16 << 20;

/// The result of reading an archive: for each image its names, its config, and its layers' digests.
type ImagesRead = Vec<(Vec<String>, Digest, Vec<Digest>)>;

fn sought(data: &[u8]) -> Result<ImagesRead, Error> {
    let mut file = tempfile::tempfile().expect("there is a temporary file");
    file.write_all(data).and_then(|()| file.rewind()).expect("it can be written");
    let opened = archive::open_tar(file, data.len() as u64, "x.tar".into(), Box::new(|_, _| {}))?;
    let source = match opened {
        Contents::Layers(source) => source,
        Contents::Layout(layout) => {
            laid_out(&layout)?;
            return Err(Error::Image("no docker archive".into()));
        }
    };
    assert!(source.images().is_some_and(|images| !images.is_empty()));
    walked(source)
}

/// All that a layout holds, in the order in which it can be put.
fn laid_out(layout: &Layout) -> Result<(), Error> {
    for name in layout.names() {
        let selection = Selection { name: Some(name), ..Selection::default() };
        if let Err(error) = layout.select(&selection) {
            checked(&error);
        }
    }
    for tree in layout.trees()? {
        assert!(tree.root < tree.nodes.len());
        for (place, node) in tree.nodes.iter().enumerate() {
            assert!(node.children.iter().all(|&child| child < place));
            assert_eq!(Digest::of(&node.bytes), node.digest);
            assert!(tree.nodes[..place].iter().all(|before| before.digest != node.digest));
        }
    }
    Ok(())
}

/// Reads every layer to its end.
fn walked(mut source: Box<dyn Source>) -> Result<ImagesRead, Error> {
    let mut digests = Vec::new();
    let mut left = MOST;
    while let Some(layer) = source.next_layer()? {
        assert_eq!(layer.id.0, digests.len());
        let mut hasher = Hasher::new();
        let (mut length, mut piece) = (0, [0; 4096]);
        loop {
            let count = match layer.content.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) => return Err(Error::from_read(error, &layer.entry)),
            };
            hasher.update(&piece[..count]);
            length += count as u64;
            if length > left {
                return Err(Error::Image("a bomb".into()));
            }
        }
        left -= length;
        assert_eq!(length, layer.size, "{:?}", layer.entry);
        if let Claim::Hint(diff_id) | Claim::DiffId(diff_id) = &layer.claim {
            let _: &DiffId = diff_id;
        }
        digests.push(hasher.finish());
    }
    let images = source.images().expect("they are known at the end");
    assert!(!images.is_empty());
    let read = |image: &Image| {
        assert_eq!(image.layers.len(), image.config.diff_ids().len());
        let layers = image.layers.iter().map(|id| digests[id.0].clone()).collect();
        (image.names.clone(), image.config.digest().clone(), layers)
    };
    Ok(images.iter().map(read).collect())
}

fn stream(data: Vec<u8>, wrapping: Wrapping) -> Stream {
    if wrapping == Wrapping::None {
        return Stream::of(&data);
    }
    let memory = wrapping::memory(wrapping, &data);
    decompress::stream(Cursor::new(data), "x".into(), None, (wrapping, memory), Box::new(|_, _| {}))
        .expect("there is a thread to read it")
}

fn unwrapped(mut stream: Stream) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    while (all.len() as u64) < MOST {
        match Bytes::read(&mut stream, &mut piece)? {
            0 => break,
            count => all.extend_from_slice(&piece[..count]),
        }
    }
    Ok(all)
}

/// Checks that the message is one line and has no control characters.
fn checked(error: &Error) {
    let text = error.to_string();
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// The tar with corrected checksums in all headers.
fn mended(data: &[u8]) -> Vec<u8> {
    let mut data = data.to_vec();
    let mut at = 0;
    while let Some(block) = data.get_mut(at..at + BLOCK) {
        if tar::is_tar(block) && block.iter().all(|&byte| byte == 0) {
            break;
        }
        let mut header = ::tar::Header::new_old();
        header.as_mut_bytes().copy_from_slice(block);
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
        let size = header.entry_size().unwrap_or_default();
        // If the content goes beyond the end, there are no more headers to correct.
        let size = usize::try_from(size).unwrap_or(usize::MAX).min(data.len());
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
    data
}

fn append(
    builder: &mut ::tar::Builder<Vec<u8>>,
    name: &str,
    entry_type: ::tar::EntryType,
    content: &[u8],
) {
    let mut header = ::tar::Header::new_ustar();
    header.set_path(name).expect("it is short");
    header.set_entry_type(entry_type);
    header.set_size(content.len() as u64);
    header.set_cksum();
    builder.append(&header, content).expect("a vector takes all");
}
