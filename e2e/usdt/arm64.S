/* The notes of a program for arm64 with operands of every form. It is assembled and linked, and never run:
 *
 *   aarch64-linux-gnu-as -o arm64.o arm64.S && aarch64-linux-gnu-ld -o arm64 arm64.o
 */
    .macro PROBE name, arguments
990:
    nop
    .pushsection .note.stapsdt, "?", "note"
    .balign 4
    .4byte 992f - 991f, 994f - 993f, 3
991:
    .asciz "stapsdt"
992:
    .balign 4
993:
    .8byte 990b, _.stapsdt.base, semaphore
    .asciz "forms"
    .asciz "\name"
    .asciz "\arguments"
994:
    .balign 4
    .popsection
    .endm

    .text
    .globl _start
_start:
    PROBE registers, "8@x0 -4@w21 8@x30 8@sp 4@wsp 8@xzr"
    PROBE constants, "-4@42 4@#7 -8@-1 8@0xffffffffffffffff 1@0"
    PROBE based, "8@[x1] 8@[sp, 16] -4@[sp, -16] 4@[x29, #0x20] 1@[sp]"
    PROBE indexed, "8@[x1, x2] 8@[x1, x2, lsl 3] 4@[x1, w2, sxtw 2] 2@[x1, w2, uxtw #1] 4@[x1, x2, sxtx 2]"
    PROBE symbols, "8@counter 8@counter+8 4@[x3, :lo12:counter] 4@[x3, #:lo12:counter+8]"
    PROBE none, ""
    PROBE refused, "8f@d0 4@s1 16@q2 8@[x0], 8"
    ret

    .pushsection .stapsdt.base, "aG", "progbits", .stapsdt.base, comdat
    .weak _.stapsdt.base
    .hidden _.stapsdt.base
_.stapsdt.base:
    .space 1
    .size _.stapsdt.base, 1
    .popsection

    .section .probes, "aw"
    .balign 8
semaphore:
    .2byte 0
    .data
    .balign 8
    .8byte 0
counter:
    .8byte 1, 2
