//! Where a long text may be cut so that its pieces have the very tokens of the whole. The crate keeps some 64 bytes for each byte of what
//! it encodes at once, so long texts go through it piece by piece.
//!
//! The one place to cut is before a space between an ASCII letter or digit and an ASCII letter, and only for tokenizers of which it can be
//! said from their parts that
//!   * no normaliser looks across such a place or does anything at the ends of a text that it would not do inside,
//!   * a pre-tokenizer splits there, so that the model never sees both sides at once,
//!   * no added token reaches across it, or takes the space with it.
//! What follows is a list of parts that keep these promises, not of those that break them.

use serde_json::Value;
use tokenizers::Tokenizer;

/// Whether texts may be cut for this tokenizer.
pub fn can_cut(tokenizer: &Tokenizer) -> bool {
    let normalizer = tokenizer.get_normalizer().map_or(Some(Value::Null), json);
    let pre_tokenizer = tokenizer.get_pre_tokenizer().map_or(Some(Value::Null), json);
    let post_processor = tokenizer.get_post_processor().map_or(Some(Value::Null), json);
    let (Some(normalizer), Some(pre_tokenizer), Some(post_processor)) = (normalizer, pre_tokenizer, post_processor)
    else {
        return false;
    };
    parts(&normalizer, "normalizers").all(is_local_normalizer)
        && parts(&pre_tokenizer, "pretokenizers").all(is_local_pre_tokenizer)
        && parts(&pre_tokenizer, "pretokenizers").any(splits_at_spaces)
        && parts(&post_processor, "processors").all(is_local_post_processor)
        && tokenizer.get_added_tokens_decoder().values().all(|token| stays_on_one_side(&token.content))
}

/// The end of the piece of `text` that begins at `begin`: the first place to cut once it has `least` bytes, or the end of the text.
pub fn end_of_piece(text: &str, begin: usize, least: usize) -> usize {
    let bytes = text.as_bytes();
    let first = begin.saturating_add(least).max(begin + 1);
    let is_cut = |&at: &usize| {
        bytes[at] == b' ' && bytes[at - 1].is_ascii_alphanumeric() && bytes[at + 1].is_ascii_alphabetic()
    };
    (first..text.len().saturating_sub(1)).find(is_cut).unwrap_or(text.len())
}

fn json(part: &impl serde::Serialize) -> Option<Value> {
    serde_json::to_value(part).ok()
}

/// A part, or those that it is a sequence of, nested ones too; none for null.
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
        "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => true,
        "ByteLevel" => part["use_regex"] == true,
        "Metaspace" => part["split"] == true,
        _ => false,
    }
}

/// ByteLevel offsets are trimmed in another way for a text's first token if that may have been given a space.
fn is_local_post_processor(part: &Value) -> bool {
    match name(part) {
        "BertProcessing" | "TemplateProcessing" => true,
        "ByteLevel" | "RobertaProcessing" => part["trim_offsets"] == false || part["add_prefix_space"] == false,
        _ => false,
    }
}

fn stays_on_one_side(added_token: &str) -> bool {
    let bytes = added_token.as_bytes();
    let at_an_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    !added_token.contains(char::is_whitespace) && !at_an_end(bytes.first()) && !at_an_end(bytes.last())
}
