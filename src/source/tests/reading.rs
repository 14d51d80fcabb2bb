//! The memory, the progress and the threads of reading.

use super::*;

#[test]
fn a_window_that_takes_too_much_memory_is_an_error() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(&nix_archive(&[])).unwrap();
    let text = error_of(&encoder.finish().unwrap());
    assert_eq!(
        text,
        "FILE: its zstd compression needs more than 128 MiB of memory to read; decompress it first: \
         `zstd -dc --long=31 FILE | pushimg - DEST`"
    );
    let mut options = liblzma::stream::LzmaOptions::new_preset(0).unwrap();
    options.dict_size(128 << 20);
    let mut filters = liblzma::stream::Filters::new();
    filters.lzma2(&options);
    let stream =
        liblzma::stream::Stream::new_stream_encoder(&filters, liblzma::stream::Check::Crc64);
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream.unwrap());
    encoder.write_all(&nix_archive(&[])).unwrap();
    let text = error_of(&encoder.finish().unwrap());
    assert!(text.starts_with("FILE: its xz compression needs more than 72 MiB"), "{text}");
}

#[test]
fn a_source_tells_how_much_memory_it_takes_and_keeps_to_it() {
    let archive = nix_archive(&[&layer(&[7; 200_000])]);
    let framed = |window_log, bytes: &[u8]| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(window_log).unwrap();
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    };
    let memory = |bytes: &[u8]| {
        let (_folder, path) = folder_with(bytes);
        open_path(&path).unwrap().memory()
    };
    assert_eq!(memory(&archive), 0);
    assert_eq!(memory(&compress(&archive, Wrapping::Gzip)), 0);
    // Any frame may take 8 MiB. If the first frame's header is not at the beginning, 64 MiB are
    // allowed.
    assert_eq!(memory(&framed(20, &archive)), 8 << 20);
    assert_eq!(memory(&framed(25, &archive)), 32 << 20);
    assert_eq!(memory(&[b"\x50\x2a\x4d\x18\0\0\0\0", &*framed(20, &archive)].concat()), 64 << 20);

    let (head, tail) = archive.split_at(archive.len() / 2);
    let grown = [framed(20, head), framed(24, tail)].concat();
    let text = error_of(&grown);
    assert!(text.starts_with("FILE: its zstd compression needs more than 8 MiB"), "{text}");
}

#[test]
fn progress_ends_at_the_length_of_the_file() {
    let archive = nix_archive(&[&layer(&[1; 50_000])]);
    for wrapping in WRAPPINGS {
        let (_folder, path) = folder_with(&compress(&archive, wrapping));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        let mut source =
            open_with(&path, move |at, total| sink.lock().unwrap().push((at, total))).unwrap();
        read_whole(&mut *source).unwrap();
        let length = fs::metadata(path).unwrap().len();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.last(), Some(&(length, Some(length))), "{wrapping}");
        assert!(seen.is_sorted());
    }
}

#[test]
fn a_source_that_is_dropped_ends_its_thread() {
    let (_folder, path) =
        folder_with(&compress(&nix_archive(&[&layer(&vec![0; 30 << 20])]), Wrapping::Gzip));
    // The thread owns the closure, and with it one of the two references.
    let alive = Arc::new(AtomicU64::new(0));
    let held = alive.clone();
    let mut source = open_with(&path, move |at, _| held.store(at, Ordering::Relaxed)).unwrap();
    source.next_layer().unwrap().unwrap();
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(source);
    let gone = (0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        Arc::strong_count(&alive) == 1
    });
    assert!(gone);
}
