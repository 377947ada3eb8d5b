//! Sites: the places of an object where a memory system call is made, each verified.
//!
//! A site is seven bytes, `mov $number, %eax` and `syscall`; that of the function `syscall` has `mov 8(%rsp), %r9`
//! instead, and its number is known only when it runs. The function around each system call of the object, memory or
//! not, is decoded from its first instruction on. A site counts if
//! - it consists of these two instructions, and not of bytes that happen to look like them;
//! - nothing jumps to its second instruction, or into one of them.
//!
//! A memory system call that is made otherwise is a reason to refuse the object: it would be missed.

use core::ops::Range;
use std::format;
use std::string::String;
use std::vec::Vec;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};

use super::function::Functions;
use super::object::{Kind, Object};
use super::text;
use crate::call::NUMBERS;

/// The length of the instruction that is replaced, in bytes.
pub(super) const PATCH: usize = 5;
/// The length of a site.
pub(super) const SITE: usize = 7;

/// Which call a site makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Number(usize),
    /// The one whose number is in rax by then.
    Any,
}

/// A place to patch.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) address: usize,
    pub(super) which: Which,
    /// The bytes that are replaced.
    pub(super) old: [u8; PATCH],
    /// The function around it uses vector registers.
    pub(super) has_vectors: bool,
    /// Unused bytes behind the function, for a site that cannot be exchanged in one step.
    pub(super) pad: Option<usize>,
}

/// Finds all sites of an object.
///
/// # Errors
/// What is not as expected.
pub(super) fn find(object: &Object) -> Result<Vec<Site>, String> {
    let mut sites = Vec::new();
    let functions = Functions::of(object);
    let mut done: Range<usize> = 0..0;
    for call in system_calls(object) {
        if done.contains(&call) {
            continue;
        }
        // Without an entry in the table: bytes of something else, or code that is not called as a function.
        let Some(function) = functions.around(call).filter(|function| function.contains(&call)) else {
            continue;
        };
        let pad = pad_behind(object, &functions, &function);
        sites.extend(Body::decode(object, &function).sites(object, pad)?);
        done = function;
    }
    complete(object, &sites)?;
    Ok(sites)
}

/// The addresses at which the bytes of a system call instruction stand.
fn system_calls(object: &Object) -> impl Iterator<Item = usize> {
    let start = object.text.start;
    let pairs = object.code().windows(2).enumerate();
    pairs.filter(|(_, bytes)| *bytes == [0x0f, 0x05]).map(move |(offset, _)| start + offset)
}

/// A function, decoded.
struct Body {
    instructions: Vec<Instruction>,
}

impl Body {
    fn decode(object: &Object, function: &Range<usize>) -> Body {
        let offset = function.start - object.text.start;
        let end = (offset + function.len()).min(object.text.len());
        let code = &object.code()[offset..end];
        let decoder = Decoder::with_ip(64, code, function.start as u64, DecoderOptions::NONE);
        Body { instructions: decoder.into_iter().collect() }
    }

    fn sites(&self, object: &Object, mut pad: Option<usize>) -> Result<Vec<Site>, String> {
        let mut sites: Vec<Site> = Vec::new();
        let has_vectors = self.instructions.iter().any(uses_vectors);
        let mut number = None;
        for (index, instruction) in self.instructions.iter().enumerate() {
            if instruction.code() == Code::Syscall {
                let before = index.checked_sub(1).map(|before| &self.instructions[before]);
                match (before.and_then(which), number) {
                    (Some(which), _) => {
                        sites.extend(
                            self.site(object, instruction, which, has_vectors)?
                                .map(|site| site.with(&mut pad)),
                        );
                    }
                    (None, Some(number)) if NUMBERS.contains(&number) => {
                        return Err(unexpected(object, instruction.ip(), "its number is set elsewhere"));
                    }
                    _ => {}
                }
            }
            number = loaded_number(instruction).or(number);
        }
        Ok(sites)
    }

    /// The site that ends with `call`, if it may have an effect.
    fn site(
        &self,
        object: &Object,
        call: &Instruction,
        which: Which,
        has_vectors: bool,
    ) -> Result<Option<Site>, String> {
        if matches!(which, Which::Number(number) if !NUMBERS.contains(&number)) {
            return Ok(None);
        }
        let address = call.ip() as usize - PATCH;
        let inside = address as u64 + 1..(address + SITE) as u64;
        if self.instructions.iter().any(|other| inside.contains(&target(other))) {
            return Err(unexpected(object, call.ip(), "something jumps into it"));
        }
        let mut old = [0; PATCH];
        let offset = address - object.text.start;
        old.copy_from_slice(&object.code()[offset..offset + PATCH]);
        Ok(Some(Site { address, which, old, has_vectors, pad: None }))
    }
}

impl Site {
    /// Takes the pad if it needs one and can reach it.
    fn with(self, pad: &mut Option<usize>) -> Site {
        let needs = !text::is_one_step(self.address, PATCH) && text::is_one_step(self.address, text::SHORT);
        let near = pad.filter(|pad| needs && text::is_near(self.address, *pad));
        if near.is_some() {
            *pad = None;
        }
        Site { pad: near, ..self }
    }
}

/// Bytes between a function and the next one that nothing executes, enough for a jump.
fn pad_behind(object: &Object, functions: &Functions<'_>, function: &Range<usize>) -> Option<usize> {
    const ALIGNED: usize = 16;
    let bytes = function.end..function.end.next_multiple_of(ALIGNED);
    let code = object.code().get(bytes.start - object.text.start..bytes.end - object.text.start)?;
    let is_idle = |instruction: Instruction| {
        matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
            || (instruction.code() == Code::Xchg_r16_AX && instruction.op0_register() == Register::AX)
    };
    let mut decoder = Decoder::with_ip(64, code, bytes.start as u64, DecoderOptions::NONE);
    let nobodys =
        bytes.clone().all(|address| functions.around(address).is_none_or(|other| !other.contains(&address)));
    (bytes.len() >= PATCH && nobodys && decoder.iter().all(is_idle)).then_some(bytes.start)
}

/// Which call follows, if this is the first half of a site.
fn which(instruction: &Instruction) -> Option<Which> {
    let is_argument = instruction.code() == Code::Mov_r64_rm64
        && instruction.op0_register() == Register::R9
        && instruction.memory_base() == Register::RSP
        && instruction.memory_index() == Register::None;
    match loaded_number(instruction) {
        _ if instruction.len() != PATCH => None,
        Some(number) => Some(Which::Number(number)),
        None => is_argument.then_some(Which::Any),
    }
}

/// The number that an instruction loads into eax.
fn loaded_number(instruction: &Instruction) -> Option<usize> {
    let loads = instruction.code() == Code::Mov_r32_imm32 && instruction.op0_register() == Register::EAX;
    loads.then(|| instruction.immediate32() as usize)
}

fn target(instruction: &Instruction) -> u64 {
    match instruction.flow_control() {
        FlowControl::ConditionalBranch | FlowControl::UnconditionalBranch => instruction.near_branch_target(),
        _ => 0,
    }
}

fn uses_vectors(instruction: &Instruction) -> bool {
    (0..instruction.op_count()).any(|operand| {
        let register = instruction.op_register(operand);
        instruction.op_kind(operand) == OpKind::Register
            && (register.is_vector_register() || register.is_mm() || register.is_k() || register.is_st())
    })
}

fn unexpected(object: &Object, address: u64, what: &str) -> String {
    let offset = address as usize - object.whole.start;
    format!("{}: the memory system call at offset {offset:#x} is not as expected: {what}", object.name)
}

/// Makes sure that all calls were found that the object must have.
fn complete(object: &Object, sites: &[Site]) -> Result<(), String> {
    const LIBRARY: [i64; 9] = [
        libc::SYS_munmap,
        libc::SYS_mmap,
        libc::SYS_mprotect,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_shmat,
        libc::SYS_shmdt,
        libc::SYS_remap_file_pages,
    ];
    const LINKER: [i64; 3] = [libc::SYS_munmap, libc::SYS_mmap, libc::SYS_mprotect];
    const STATIC: [i64; 2] = [libc::SYS_munmap, libc::SYS_brk];
    let has = |which| sites.iter().any(|site| site.which == which);
    let wanted: &[i64] = match object.kind {
        Kind::Library => &LIBRARY,
        Kind::Linker => &LINKER,
        Kind::Static => &STATIC,
    };
    let missing: Vec<_> = wanted.iter().filter(|number| !has(Which::Number(**number as usize))).collect();
    if !missing.is_empty() {
        let name = &object.name;
        return Err(format!(
            "{name}: no system call as expected with the numbers {missing:?}: {}",
            patched()
        ));
    }
    if object.kind == Kind::Library && !has(Which::Any) {
        return Err(format!("{}: the function `syscall` is not as expected", object.name));
    }
    Ok(())
}

/// Says who else may have patched.
fn patched() -> String {
    match super::foreign::owner() {
        Some(owner) => format!("{owner} has patched it before"),
        None => String::from("another C library, or a version that is not known"),
    }
}
