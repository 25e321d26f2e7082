//! Where one MessagePack value ends and the next begins, without decoding either.

use super::ValueError;

/// How deep values may nest; deeper ones are refused when they are packed and when they arrive.
pub const MAX_DEPTH: usize = 64;

/// Takes one value off the front of `input` undecoded; returns its MessagePack.
///
/// # Errors
/// When the front is not a whole value, or nests deeper than [`MAX_DEPTH`].
pub fn skip<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], ValueError> {
    let whole = *input;
    let (front, body, inner) = head(whole).ok_or_else(cut_short)?;
    if inner == 0 {
        // most values: a number, a string
        let (value, rest) = whole
            .split_at_checked(front.saturating_add(body))
            .ok_or_else(cut_short)?;
        *input = rest;
        return Ok(value);
    }
    let mut at = 0;
    // how many values are still to come at each level
    let mut open = [0u64; MAX_DEPTH + 1];
    let mut depth = 0;
    open[0] = 1;
    loop {
        let (head, body, inner) = head(&whole[at..]).ok_or_else(cut_short)?;
        at = at
            .checked_add(head)
            .and_then(|n| n.checked_add(body))
            .ok_or_else(cut_short)?;
        if at > whole.len() {
            return Err(cut_short());
        }
        open[depth] -= 1;
        if inner > 0 {
            if depth == MAX_DEPTH {
                return Err(ValueError::new(format!(
                    "the value nests deeper than {MAX_DEPTH} levels"
                )));
            }
            depth += 1;
            open[depth] = inner;
        }
        while open[depth] == 0 {
            if depth == 0 {
                let (value, rest) = whole.split_at(at);
                *input = rest;
                return Ok(value);
            }
            depth -= 1;
        }
    }
}

fn cut_short() -> ValueError {
    ValueError::new("the value is cut short".into())
}

/// The length of the value's head, of its body, and the number of values inside it.
pub(super) fn head(input: &[u8]) -> Option<(usize, usize, u64)> {
    let u8_at = |at: usize| input.get(at).map(|&n| n as usize);
    let u16_at = || Some(u16::from_be_bytes(input.get(1..3)?.try_into().ok()?) as usize);
    let u32_at = || Some(u32::from_be_bytes(input.get(1..5)?.try_into().ok()?) as usize);
    Some(match *input.first()? {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (1, 0, 0),
        n @ 0x80..=0x8f => (1, 0, 2 * (n & 0x0f) as u64),
        n @ 0x90..=0x9f => (1, 0, (n & 0x0f) as u64),
        n @ 0xa0..=0xbf => (1, (n & 0x1f) as usize, 0),
        0xc1 => return None,
        0xc4 | 0xd9 => (2, u8_at(1)?, 0),
        0xc5 | 0xda => (3, u16_at()?, 0),
        0xc6 | 0xdb => (5, u32_at()?, 0),
        0xc7 => (3, u8_at(1)?, 0),
        0xc8 => (4, u16_at()?, 0),
        0xc9 => (6, u32_at()?, 0),
        0xcc | 0xd0 => (1, 1, 0),
        0xcd | 0xd1 => (1, 2, 0),
        0xca | 0xce | 0xd2 => (1, 4, 0),
        0xcb | 0xcf | 0xd3 => (1, 8, 0),
        n @ 0xd4..=0xd8 => (2, 1 << (n - 0xd4), 0),
        0xdc => (3, 0, u16_at()? as u64),
        0xdd => (5, 0, u32_at()? as u64),
        0xde => (3, 0, 2 * u16_at()? as u64),
        0xdf => (5, 0, 2 * u32_at()? as u64),
    })
}

/// What is in a value.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Content {
    /// Bytes of strings.
    pub(crate) text: usize,
    /// Bytes of binaries.
    pub(crate) binary: usize,
    /// Elements of arrays.
    pub(crate) elements: usize,
    /// Entries of maps.
    pub(crate) entries: usize,
    /// Maps.
    #[cfg_attr(
        not(feature = "script"),
        allow(dead_code, reason = "only Rhai counts them")
    )]
    pub(crate) maps: usize,
    /// Strings, arrays and maps.
    #[cfg_attr(
        not(feature = "script"),
        allow(dead_code, reason = "only Rhai counts them")
    )]
    pub(crate) compound: usize,
}

/// Counts what is in a value, without decoding it. One that is cut short has what there is of it.
pub(crate) fn content(mut value: &[u8]) -> Content {
    let mut content = Content::default();
    while let Some((head, body, inner)) = head(value) {
        match value[0] {
            0x80..=0x8f | 0xde | 0xdf => {
                content.entries += inner as usize / 2;
                content.maps += 1;
            }
            0x90..=0x9f | 0xdc | 0xdd => content.elements += inner as usize,
            0xc4..=0xc6 => content.binary += body,
            _ if body > 8 || matches!(value[0], 0xa0..=0xbf | 0xd9..=0xdb) => content.text += body,
            _ => {
                value = value.get(head + body..).unwrap_or_default();
                continue;
            }
        }
        content.compound += 1;
        value = value.get(head.saturating_add(body)..).unwrap_or_default();
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_the_next_begins() {
        let mut bytes = Vec::new();
        let values = (
            vec![("tea".repeat(100), 1.5)],
            None::<()>,
            -300,
            [70_u16; 20],
        );
        rmp_serde::encode::write(&mut bytes, &values).expect("plain values encode");
        bytes.push(0x07);
        let mut input = &bytes[..];
        assert_eq!(skip(&mut input), Ok(&bytes[..bytes.len() - 1]));
        assert_eq!(input, [0x07]);
        for cut in 0..bytes.len() - 1 {
            assert_eq!(skip(&mut &bytes[..cut]), Err(cut_short()), "cut at {cut}");
        }
    }

    #[test]
    fn values_that_nest_too_deep_are_refused() {
        let mut deep = vec![0x91; MAX_DEPTH];
        deep.push(0xc0);
        assert!(skip(&mut &deep[..]).is_ok());
        deep.insert(0, 0x91);
        assert!(
            skip(&mut &deep[..])
                .unwrap_err()
                .to_string()
                .contains("deeper than 64")
        );
    }

    #[test]
    fn a_length_that_no_memory_holds_is_refused() {
        assert!(skip(&mut &[0xdf, 0xff, 0xff, 0xff, 0xff][..]).is_err());
        assert!(skip(&mut &[0xc6, 0xff, 0xff, 0xff, 0xff, 0][..]).is_err());
    }
}
