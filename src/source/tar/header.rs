//! The header block of a tar entry: how long it is, and how it is recognised.

/// The length of a header. Contents are padded to a multiple of it.
pub const BLOCK: usize = 512;

/// Whether this can be the first block of a tar: a header, or the zeros of an empty one.
pub fn is_tar(block: &[u8]) -> bool {
    <&[u8; BLOCK]>::try_from(block)
        .is_ok_and(|block| block.iter().all(|&byte| byte == 0) || has_valid_checksum(block))
}

/// Whether the checksum is right. It is the sum of all bytes, with spaces in place of the checksum
/// itself. Some old programs added the bytes up as signed numbers.
pub fn has_valid_checksum(header: &[u8; BLOCK]) -> bool {
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (index, &byte) in header.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    // The field is octal digits with spaces or zeros around them.
    let digits: Vec<u8> = header[148..156]
        .iter()
        .copied()
        .skip_while(|&byte| byte == b' ')
        .take_while(|&byte| !matches!(byte, 0 | b' '))
        .collect();
    std::str::from_utf8(&digits)
        .ok()
        .filter(|text| !text.starts_with('+'))
        .and_then(|text| i64::from_str_radix(text, 8).ok())
        .is_some_and(|stored| stored == unsigned || stored == signed)
}
