//! Finds places where a long text can be cut so that its pieces together have the tokens of the whole. The crate keeps hundreds
//! of bytes for each byte that it encodes at once, so long texts are encoded piece by piece.
//!
//! A text can be cut before a space that follows a letter or ASCII digit and precedes a letter, if the tokenizer's parts guarantee that
//!   * no normalizer looks across such a place, or treats the ends of a text differently from its inside,
//!   * a pre-tokenizer splits there, so that the tokenizer's model never sees both sides at once,
//!   * no added token spans the place or consumes the space.
//! The functions below accept only parts that are known to satisfy these conditions. Letters are ASCII letters and those in `LETTERS`. A
//! cut never separates a letter from its combining marks, and no grapheme cluster contains both such a letter and the space.
//!
//! A text can also be cut between two ideographs if the normalizer is BERT's, which puts spaces around each of them, and before ASCII
//! punctuation if the pre-tokenizer is BERT's, which makes a word of each punctuation mark, and no added token has that mark.

use serde_json::Value;
use tokenizers::Tokenizer;

/// Letters beyond ASCII. Next to a space, each is a grapheme cluster of its own. None is a combining mark or composes with a space.
const LETTERS: [(u32, u32); 19] = [
    (0xC0, 0xD6),     // Latin.
    (0xD8, 0xF6),
    (0xF8, 0x24F),
    (0x391, 0x3A1),   // Greek.
    (0x3A3, 0x3CE),
    (0x400, 0x481),   // Cyrillic.
    (0x48A, 0x52F),
    (0x561, 0x586),   // Armenian.
    (0x5D0, 0x5EA),   // Hebrew.
    (0x620, 0x64A),   // Arabic.
    (0x904, 0x939),   // Devanagari.
    (0xE01, 0xE30),   // Thai.
    (0x10D0, 0x10FA), // Georgian.
    (0x1E00, 0x1EFF), // Latin of Vietnamese.
    (0x3041, 0x3096), // Hiragana.
    (0x30A1, 0x30FA), // Katakana.
    (0x3400, 0x4DBF), // Ideographs.
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), // Hangul.
];

/// The places where a tokenizer's texts can be cut.
#[derive(Clone, Copy)]
pub struct Cuts {
    beyond_ascii: bool, // Also next to letters beyond ASCII.
    ideographs: bool,   // Also between two ideographs.
    marks: u128,        // Also before the ASCII punctuation marks whose bits are set.
}

impl Cuts {
    /// Returns the places for a tokenizer; None if its texts cannot be cut.
    pub fn of(tokenizer: &Tokenizer) -> Option<Cuts> {
        let normalizer = tokenizer.get_normalizer().map_or(Some(Value::Null), json)?;
        let pre_tokenizer = tokenizer.get_pre_tokenizer().map_or(Some(Value::Null), json)?;
        let post_processor = tokenizer.get_post_processor().map_or(Some(Value::Null), json)?;
        let added = tokenizer.get_added_tokens_decoder();
        let can_cut = parts(&normalizer, "normalizers").all(is_local_normalizer)
            && parts(&pre_tokenizer, "pretokenizers").all(is_local_pre_tokenizer)
            && parts(&pre_tokenizer, "pretokenizers").find(|part| splits_at_spaces(part) || hides_spaces(part)).is_some_and(splits_at_spaces)
            && parts(&post_processor, "processors").all(is_local_post_processor)
            && added.values().all(|token| stays_on_one_side(&token.content, |c| c.is_ascii_alphanumeric()));
        let beyond_ascii = added.values().all(|token| stays_on_one_side(&token.content, char::is_alphanumeric));
        let as_bert = parts(&normalizer, "normalizers").all(leaves_ideographs_alone)
            && parts(&pre_tokenizer, "pretokenizers").all(|part| name(part) == "BertPreTokenizer");
        let ideographs = as_bert
            && beyond_ascii
            && added.values().all(|token| !token.content.chars().any(is_ideograph))
            && parts(&normalizer, "normalizers").any(|part| part["handle_chinese_chars"] == true);
        let is_mark = |c: &char| as_bert && c.is_ascii_punctuation() && !added.values().any(|token| token.content.contains(*c));
        let marks = ('\0'..='\x7F').filter(is_mark).fold(0, |marks, c| marks | 1 << c as u32);
        can_cut.then_some(Cuts { beyond_ascii, ideographs, marks })
    }

    /// Returns the first place to cut `text`, which is UTF-8, at byte `from` or later, or the end of the text if there is none.
    pub fn at_or_after(&self, text: &[u8], from: usize) -> usize {
        (from.max(1)..text.len().saturating_sub(1)).find(|&at| self.is_cut(text, at)).unwrap_or(text.len())
    }

    /// Returns the last place to cut `text`, which is UTF-8, at byte `to` or earlier, or 0 if there is none.
    pub fn at_or_before(&self, text: &[u8], to: usize) -> usize {
        (1..=to.min(text.len().saturating_sub(2))).rev().find(|&at| self.is_cut(text, at)).unwrap_or(0)
    }

    /// Returns whether the text can be cut at byte `at`. Requires 0 < at < text.len() - 1.
    fn is_cut(&self, text: &[u8], at: usize) -> bool {
        match text[at] {
            b' ' => {
                (text[at - 1].is_ascii_alphanumeric() || self.is_letter(char_before(text, at)))
                    && (text[at + 1].is_ascii_alphabetic() || self.is_letter(char_from(text, at + 1)))
            }
            0xE4..=0xE9 => {
                self.ideographs
                    && char_before(text, at).is_some_and(is_ideograph)
                    && char_from(text, at).is_some_and(is_ideograph)
            }
            mark if self.is_mark(mark) => {
                text[at - 1].is_ascii_alphanumeric() || self.is_mark(text[at - 1]) || self.is_letter(char_before(text, at))
            }
            _ => false,
        }
    }

    fn is_mark(&self, byte: u8) -> bool {
        byte.is_ascii() && self.marks >> byte & 1 == 1
    }

    /// Returns whether this is one of `LETTERS`, if texts may be cut next to them.
    fn is_letter(&self, letter: Option<char>) -> bool {
        let within = |code: u32| LETTERS.iter().any(|&(first, last)| (first..=last).contains(&code));
        self.beyond_ascii && letter.is_some_and(|letter| within(letter.into()))
    }
}

/// Returns the character that begins at a byte of UTF-8, or None if the byte is inside a character.
fn char_from(text: &[u8], at: usize) -> Option<char> {
    let length = match text[at] {
        0..=0x7F => 1,
        0xC0..=0xDF => 2,
        0xE0..=0xEF => 3,
        0xF0..=0xFF => 4,
        _ => return None,
    };
    std::str::from_utf8(text.get(at..at + length)?).ok()?.chars().next()
}

/// Returns the character that ends before a byte of UTF-8.
fn char_before(text: &[u8], at: usize) -> Option<char> {
    let first = (at.saturating_sub(4)..at).rev().find(|&byte| text[byte] & 0xC0 != 0x80)?;
    char_from(text, first)
}

/// Returns whether this is one of the characters that BERT's normalizer puts spaces around.
fn is_ideograph(c: char) -> bool {
    ('\u{4E00}'..='\u{9FFF}').contains(&c)
}

fn leaves_ideographs_alone(part: &Value) -> bool {
    matches!(name(part), "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "StripAccents")
}

fn json(part: &impl serde::Serialize) -> Option<Value> {
    serde_json::to_value(part).ok()
}

/// Returns the part itself, or, for a sequence, its parts, nested ones included. Null has none.
fn parts<'a>(part: &'a Value, list: &str) -> Box<dyn Iterator<Item = &'a Value> + 'a> {
    if part.is_null() {
        return Box::new(std::iter::empty());
    }
    let Some(list_of_parts) = part.get(list).and_then(Value::as_array) else {
        return Box::new(std::iter::once(part));
    };
    let list = list.to_string();
    Box::new(list_of_parts.iter().flat_map(move |each| parts(each, &list).collect::<Vec<_>>()))
}

fn name(part: &Value) -> &str {
    part["type"].as_str().unwrap_or("")
}

fn is_local_normalizer(part: &Value) -> bool {
    match name(part) {
        "BertNormalizer" | "Lowercase" | "NFC" | "NFD" | "NFKC" | "NFKD" | "Nmt" | "Precompiled" | "StripAccents" => true,
        "Strip" => part["strip_left"] == false,
        "Replace" => {
            let pattern = &part["pattern"];
            let needs_no_space = |text: &str| !text.is_empty() && !text.contains(char::is_whitespace);
            pattern["Regex"] == " {2,}" || pattern["String"].as_str().is_some_and(needs_no_space)
        }
        _ => false,
    }
}

fn is_local_pre_tokenizer(part: &Value) -> bool {
    matches!(name(part), "Digits" | "Punctuation" | "ByteLevel" | "Metaspace") || splits_at_spaces(part)
}

fn splits_at_spaces(part: &Value) -> bool {
    match name(part) {
        "Split" => is_words_and_numbers(part),
        "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => true,
        "ByteLevel" => part["use_regex"] == true,
        "Metaspace" => part["split"] == true,
        _ => false,
    }
}

/// Returns whether the parts after this one see no spaces.
fn hides_spaces(part: &Value) -> bool {
    matches!(name(part), "ByteLevel" | "Metaspace")
}

/// Returns whether this is the pattern of Llama 3, Qwen and others. Every match of it ends before a space that follows a letter or digit.
/// What begins with that space depends only on the text after it.
fn is_words_and_numbers(split: &Value) -> bool {
    let pattern = split["pattern"]["Regex"].as_str().unwrap_or("");
    let is_contraction = |c: char| c.is_ascii_lowercase() || c == '\'' || c == '|';
    let rest = pattern
        .strip_prefix("(?i:")
        .and_then(|rest| rest.split_once(")|"))
        .filter(|(contractions, _)| contractions.chars().all(is_contraction))
        .map_or(pattern, |(_, rest)| rest);
    let words = r"[^\r\n\p{L}\p{N}]?\p{L}+|";
    let others = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let numbers = rest.strip_prefix(words).and_then(|rest| rest.strip_suffix(others));
    split["behavior"] == "Isolated" && split["invert"] == false && matches!(numbers, Some(r"\p{N}" | r"\p{N}{1,3}"))
}

/// With trim_offsets and add_prefix_space, the offsets of a text's first token are trimmed differently, so ByteLevel and Roberta must not
/// have both.
fn is_local_post_processor(part: &Value) -> bool {
    match name(part) {
        "BertProcessing" | "TemplateProcessing" => true,
        "ByteLevel" | "RobertaProcessing" => part["trim_offsets"] == false || part["add_prefix_space"] == false,
        _ => false,
    }
}

fn stays_on_one_side(added_token: &str, is_word: impl Fn(char) -> bool) -> bool {
    let at_an_end = |c: Option<char>| c.is_some_and(&is_word);
    !added_token.contains(char::is_whitespace)
        && !at_an_end(added_token.chars().next())
        && !at_an_end(added_token.chars().next_back())
}
