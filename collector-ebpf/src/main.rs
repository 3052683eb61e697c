//! The BPF programs: what a server thread does goes in through probes, one record per event comes out in the ring.
#![no_std]
#![no_main]

mod filter;
mod functions;
mod maps;
mod owner;
mod read;
mod static_probes;
mod thread;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers (reading user memory among them) are for programs under a licence that the GPL is part of.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
