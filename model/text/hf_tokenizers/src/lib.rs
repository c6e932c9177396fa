//! Hugging Face `tokenizers` behind a C ABI. The contract is in hf_tokenizers.h; change both together.
#![deny(unsafe_op_in_unsafe_fn)]

mod pieces;

use std::any::Any;
use std::ffi::{c_char, c_void};
use std::hint::black_box;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Once;

use pieces::Cuts;
use tokenizers::Tokenizer;
use unicode_segmentation::UnicodeSegmentation;

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok = 0,
    NullArgument = 1,
    BadTokenizer = 2,
    InvalidUtf8 = 3,
    TooLong = 4,
    NoSuchToken = 5,
    EncodeFailed = 6,
    Panicked = 7,
    OutOfMemory = 8,
    MemoryRefused = 9,
}

/// Maximum memory for tokenizing a piece that cannot be cut.
const MAX_PIECE_MEMORY: usize = 512 << 20;
/// Memory for each byte of a piece, measured with texts of one character, and of two that alternate. A letter takes most where each of its
/// bytes is a token. Any other character may be a word and a token of its own, or be replaced by several words.
const MEMORY_PER_BYTE_OF_LETTER: usize = 200;
const MEMORY_PER_BYTE_OF_OTHER: usize = 1000;
/// Vectors that have just grown may have twice the needed capacity, and the sink has a copy.
const MEMORY_PER_TOKEN: usize = 3 * size_of::<(i32, u32, u32)>();

pub struct Handle {
    tokenizer: Tokenizer,
    vocabulary_size: i32,
    piece_bytes: usize,
    cuts: Option<Cuts>, // None if texts cannot be cut.
}

pub type TokenSink = extern "C" fn(*mut c_void, *const i32, *const u32, *const u32, usize);
pub type HoldMemory = extern "C" fn(*mut c_void, usize) -> bool;
pub type RangeSink = extern "C" fn(*mut c_void, *const u32, *const u32, usize);
pub type TextSink = extern "C" fn(*mut c_void, *const c_char, usize);

struct Failure {
    status: Status,
    message: String,
}

impl Failure {
    fn new(status: Status, message: impl ToString) -> Self {
        Failure { status, message: message.to_string() }
    }
}

/// # Safety
/// See hf_tokenizers.h: `json` holds `size` bytes, `error` has room for `error_capacity`.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_open(
    json: *const c_char,
    size: usize,
    piece_bytes: usize,
    tokenizer: *mut *mut Handle,
    error: *mut c_char,
    error_capacity: usize,
) -> Status {
    let open = || {
        if tokenizer.is_null() {
            return Err(null_argument("tokenizer"));
        }
        let handle = open(unsafe { bytes(json, size) }?, piece_bytes)?;
        unsafe { *tokenizer = Box::into_raw(Box::new(handle)) };
        Ok(())
    };
    unsafe { guarded(error, error_capacity, open) }
}

/// # Safety
/// See hf_tokenizers.h: a handle of longembed_hf_open that is not in use, or null.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_close(tokenizer: *mut Handle) {
    if !tokenizer.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(unsafe { Box::from_raw(tokenizer) })));
    }
}

/// # Safety
/// See hf_tokenizers.h: an open handle, or null.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_vocabulary_size(tokenizer: *const Handle) -> i32 {
    unsafe { tokenizer.as_ref() }.map_or(0, |handle| handle.vocabulary_size)
}

/// # Safety
/// See hf_tokenizers.h: an open handle, or null; `length` bytes of UTF-8.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_cut_after(tokenizer: *const Handle, text: *const c_char, length: usize, at: usize) -> usize {
    let cuts = unsafe { tokenizer.as_ref() }.and_then(|handle| handle.cuts);
    let text = unsafe { bytes(text, length) };
    cuts.zip(text.ok()).map_or(length, |(cuts, text)| cuts.at_or_after(text, at))
}

/// # Safety
/// See hf_tokenizers.h: an open handle, or null; `length` bytes of UTF-8.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_cut_before(tokenizer: *const Handle, text: *const c_char, length: usize, at: usize) -> usize {
    let cuts = unsafe { tokenizer.as_ref() }.and_then(|handle| handle.cuts);
    let text = unsafe { bytes(text, length) };
    cuts.zip(text.ok()).map_or(0, |(cuts, text)| cuts.at_or_before(text, at))
}

/// # Safety
/// See hf_tokenizers.h: an open handle, `length` bytes of text, `error_capacity` bytes of room.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_encode(
    tokenizer: *const Handle,
    text: *const c_char,
    length: usize,
    enough: usize,
    hold: Option<HoldMemory>,
    sink: Option<TokenSink>,
    context: *mut c_void,
    error: *mut c_char,
    error_capacity: usize,
) -> Status {
    let encode = || {
        let handle = unsafe { tokenizer.as_ref() }.ok_or_else(|| null_argument("tokenizer"))?;
        let sink = sink.ok_or_else(|| null_argument("sink"))?;
        let tokens = encode(handle, unsafe { bytes(text, length) }?, enough, |memory| hold.is_none_or(|hold| hold(context, memory)))?;
        sink(
            context,
            tokens.ids.as_ptr(),
            tokens.begins.as_ptr(),
            tokens.ends.as_ptr(),
            tokens.ids.len(),
        );
        Ok(())
    };
    unsafe { guarded(error, error_capacity, encode) }
}

/// # Safety
/// See hf_tokenizers.h: an open handle, `error_capacity` bytes of room.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_token_text(
    tokenizer: *const Handle,
    id: i32,
    sink: Option<TextSink>,
    context: *mut c_void,
    error: *mut c_char,
    error_capacity: usize,
) -> Status {
    let token_text = || {
        let handle = unsafe { tokenizer.as_ref() }.ok_or_else(|| null_argument("tokenizer"))?;
        let sink = sink.ok_or_else(|| null_argument("sink"))?;
        let text = u32::try_from(id)
            .ok()
            .and_then(|id| handle.tokenizer.id_to_token(id))
            .ok_or_else(|| Failure::new(Status::NoSuchToken, format!("no token has id {id}")))?;
        sink(context, text.as_ptr().cast(), text.len());
        Ok(())
    };
    unsafe { guarded(error, error_capacity, token_text) }
}

/// # Safety
/// See hf_tokenizers.h: an open handle, `count` ids, `error_capacity` bytes of room.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_decode(
    tokenizer: *const Handle,
    ids: *const u32,
    count: usize,
    skip_special_tokens: bool,
    sink: Option<TextSink>,
    context: *mut c_void,
    error: *mut c_char,
    error_capacity: usize,
) -> Status {
    let decode = || {
        let handle = unsafe { tokenizer.as_ref() }.ok_or_else(|| null_argument("tokenizer"))?;
        let sink = sink.ok_or_else(|| null_argument("sink"))?;
        if ids.is_null() && count > 0 {
            return Err(null_argument("ids"));
        }
        let ids = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(ids, count) } };
        if let Some(unknown) = ids.iter().find(|&&id| handle.tokenizer.id_to_token(id).is_none()) {
            return Err(Failure::new(Status::NoSuchToken, format!("no token has id {unknown}")));
        }
        let text = handle
            .tokenizer
            .decode(ids, skip_special_tokens)
            .map_err(|error| Failure::new(Status::EncodeFailed, error))?;
        sink(context, text.as_ptr().cast(), text.len());
        Ok(())
    };
    unsafe { guarded(error, error_capacity, decode) }
}

/// # Safety
/// See hf_tokenizers.h: `length` bytes of text, `error_capacity` bytes of room.
#[no_mangle]
pub unsafe extern "C" fn longembed_hf_sentences(
    text: *const c_char,
    length: usize,
    sink: Option<RangeSink>,
    context: *mut c_void,
    error: *mut c_char,
    error_capacity: usize,
) -> Status {
    let sentences = || {
        let sink = sink.ok_or_else(|| null_argument("sink"))?;
        let text = text_of(unsafe { bytes(text, length) }?)?;
        const AT_ONCE: usize = 1024;
        let (mut begins, mut ends) = (Vec::with_capacity(AT_ONCE), Vec::with_capacity(AT_ONCE));
        // A loop instead of collect(): on an empty text, size_hint() of unicode-segmentation 1.13 underflows and panics.
        for (begin, sentence) in text.split_sentence_bound_indices() {
            begins.push(begin as u32);
            ends.push((begin + sentence.len()) as u32);
            if begins.len() == AT_ONCE {
                sink(context, begins.as_ptr(), ends.as_ptr(), begins.len());
                begins.clear();
                ends.clear();
            }
        }
        if !begins.is_empty() {
            sink(context, begins.as_ptr(), ends.as_ptr(), begins.len());
        }
        Ok(())
    };
    unsafe { guarded(error, error_capacity, sentences) }
}

fn open(json: &[u8], piece_bytes: usize) -> Result<Handle, Failure> {
    let bad = |message: String| Failure::new(Status::BadTokenizer, message);
    let mut tokenizer = Tokenizer::from_bytes(json).map_err(|error| bad(error.to_string()))?;
    tokenizer.with_truncation(None).map_err(|error| bad(error.to_string()))?;
    tokenizer.with_padding(None);
    // One more than the largest id instead of the number of tokens: a vocabulary may have gaps, and callers size tables by id.
    let largest_id = tokenizer.get_vocab(true).into_values().max();
    let vocabulary_size = largest_id.map_or(Some(0), |id| i32::try_from(id).ok()?.checked_add(1));
    let vocabulary_size = vocabulary_size.ok_or_else(|| bad("a token id does not fit 31 bits".to_string()))?;
    let cuts = Cuts::of(&tokenizer);
    Ok(Handle { tokenizer, vocabulary_size, piece_bytes, cuts })
}

#[derive(Default)]
struct Tokens {
    ids: Vec<i32>,
    begins: Vec<u32>,
    ends: Vec<u32>,
}

/// Returns the bytes as text, checking that offsets fit 32 bits.
fn text_of(bytes: &[u8]) -> Result<&str, Failure> {
    if u32::try_from(bytes.len()).is_err() {
        return Err(Failure::new(Status::TooLong, "the text is longer than 4 GiB"));
    }
    std::str::from_utf8(bytes).map_err(|error| Failure::new(Status::InvalidUtf8, error))
}

/// Tokenizes a text piece by piece, until it ends or there are more than `enough` tokens. `hold` is asked for the memory of each piece.
fn encode(handle: &Handle, text: &[u8], enough: usize, hold: impl Fn(usize) -> bool) -> Result<Tokens, Failure> {
    let text = text_of(text)?;
    let mut tokens = Tokens::default();
    let mut begin = 0;
    while begin < text.len() && tokens.ids.len() <= enough {
        let least = begin.saturating_add(handle.piece_bytes).max(begin + 1);
        let end = handle.cuts.map_or(text.len(), |cuts| cuts.at_or_after(text.as_bytes(), least));
        let piece = &text[begin..end];
        let memory = checked_memory_of(piece)? + MEMORY_PER_TOKEN * (tokens.ids.len() + piece.len());
        if !hold(memory) {
            return Err(Failure::new(Status::MemoryRefused, "the caller refused the memory"));
        }
        check_allocation(memory)?;
        encode_piece(handle, piece, begin, &mut tokens)?;
        begin = end;
    }
    Ok(tokens)
}

/// Returns at least the memory for tokenizing a piece.
fn memory_of(piece: &str) -> usize {
    let is_presentation_form = |c| ('\u{FB00}'..='\u{FEFF}').contains(&c); // Normalizers may replace it by several words.
    let is_letter = |c: char| c.is_alphabetic() && !is_presentation_form(c);
    let of_byte = |c| if is_letter(c) { MEMORY_PER_BYTE_OF_LETTER } else { MEMORY_PER_BYTE_OF_OTHER };
    piece.chars().map(|c| c.len_utf8() * of_byte(c)).sum()
}

/// Returns memory_of a piece. Fails if it is more than a piece may take.
fn checked_memory_of(piece: &str) -> Result<usize, Failure> {
    let memory = memory_of(piece);
    if memory > MAX_PIECE_MEMORY {
        let message = format!(
            "{} bytes without a place to cut, which may take {memory} bytes of memory; this model's tokenizer takes at most {MAX_PIECE_MEMORY} at once",
            piece.len()
        );
        return Err(Failure::new(Status::TooLong, message));
    }
    Ok(memory)
}

/// Checks that the memory can be allocated: a failed allocation within the crate would abort.
fn check_allocation(memory: usize) -> Result<(), Failure> {
    let mut room = Vec::<u8>::new();
    room.try_reserve_exact(memory).map_err(|_| Failure::new(Status::OutOfMemory, "a piece of the text does not fit"))?;
    black_box(&room); // Or the compiler would leave the allocation out.
    Ok(())
}

/// Adds the tokens of a piece that begins at byte `base` of its text.
fn encode_piece(handle: &Handle, piece: &str, base: usize, tokens: &mut Tokens) -> Result<(), Failure> {
    // encode() counts offsets in bytes, encode_char_offsets() in characters. One text without padding never reaches the crate's
    // thread pool, whatever TOKENIZERS_PARALLELISM says.
    let encoding =
        handle.tokenizer.encode(piece, false).map_err(|error| Failure::new(Status::EncodeFailed, error))?;
    for (&id, &(begin, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
        if begin > end || end > piece.len() {
            return Err(Failure::new(Status::EncodeFailed, "a token's offsets lie outside the text"));
        }
        // The casts cannot overflow: open() checked the largest id, and the text is shorter than 4 GiB.
        tokens.ids.push(id as i32);
        tokens.begins.push((base + begin) as u32);
        tokens.ends.push((base + end) as u32);
    }
    Ok(())
}

fn null_argument(name: &str) -> Failure {
    Failure::new(Status::NullArgument, format!("{name} is null"))
}

/// # Safety
/// `data` points to `size` bytes that live as long as the result is used, or `size` is 0.
unsafe fn bytes<'a>(data: *const c_char, size: usize) -> Result<&'a [u8], Failure> {
    if size == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(null_argument("data"));
    }
    Ok(unsafe { std::slice::from_raw_parts(data.cast(), size) })
}

/// Runs `body`. A failure or panic is returned as a status, and its message is written to `error`.
///
/// # Safety
/// `error` has room for `error_capacity` bytes.
unsafe fn guarded(
    error: *mut c_char,
    error_capacity: usize,
    body: impl FnOnce() -> Result<(), Failure>,
) -> Status {
    silence_panics();
    // Unwind safety: `body` borrows the handle as const and writes only if it succeeds, so a panic leaves nothing half-done.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(failure)) => failure,
        Err(payload) => Failure::new(Status::Panicked, panic_message(payload.as_ref())),
    };
    unsafe { write_error(&failure.message, error, error_capacity) };
    failure.status
}

fn panic_message(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic without a message")
}

/// # Safety
/// `error` has room for `capacity` bytes.
unsafe fn write_error(message: &str, error: *mut c_char, capacity: usize) {
    if error.is_null() || capacity == 0 {
        return;
    }
    let mut length = message.len().min(capacity - 1);
    while !message.is_char_boundary(length) {
        length -= 1;
    }
    unsafe {
        std::ptr::copy_nonoverlapping(message.as_ptr(), error.cast(), length);
        *error.add(length) = 0;
    }
}

/// Prevents Rust from printing panic messages to stderr. They go to the caller instead, because they may quote a client's text.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}
