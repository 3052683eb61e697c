/* Every form of operand that a static probe's note can have on x86-64, each read by the processor too.
 *
 * For each case the registers are filled, a probe `mysql:command__start` whose first argument is the operand is passed, and
 * then the same operand is moved to `expected` by an instruction: what a tracer reads must be that. `widths` holds each
 * case's width, negative where it is signed. Assembled with the program that prints them, operands.c.
 */
    .set at, 0
    .section .data.widths, "aw"
    .globl widths
widths:

    /* In pieces, as the assembler takes blanks out of what it is given. */
    .macro PROBE name, others, first:vararg
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
    .8byte 990b, _.stapsdt.base, 0
    .asciz "mysql"
    .asciz "\name"
    .ascii "\first"
    .asciz "\others"
994:
    .balign 4
    .popsection
    .endm

    .macro COMMAND width, operand:vararg
    PROBE command__start, " 4@$3 8@$0 8@$0", \width@\operand
    .endm

    .macro DONE width
    call done
    .pushsection .data.widths, "aw"
    .byte \width
    .popsection
    .set at, at + 8
    .endm

    /* Bits of every part differ, and the highest of each part is set. */
    .macro FILL
    .set pattern, 0x91a2b3c4d5e6f788
    .irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    movabsq $pattern, %\register
    .set pattern, pattern - 0x0101010101010101
    .endr
    .endm

    /* All point to the middle of the table. */
    .macro POINT
    leaq middle(%rip), %rax
    .irp register, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    movq %rax, %\register
    .endr
    .endm

    /* A register or a constant. */
    .macro VALUE width, suffix, operand:vararg
    COMMAND \width, \operand
    mov\suffix \operand, expected + at(%rip)
    DONE \width
    .endm

    .macro MEMORY width, operand:vararg
    COMMAND \width, \operand
    .if \width == 8 || \width == -8
    movq \operand, %rax
    movq %rax, expected + at(%rip)
    .elseif \width == 4 || \width == -4
    movl \operand, %eax
    movl %eax, expected + at(%rip)
    .elseif \width == 2 || \width == -2
    movw \operand, %ax
    movw %ax, expected + at(%rip)
    .else
    movb \operand, %al
    movb %al, expected + at(%rip)
    .endif
    DONE \width
    .endm

    .macro POINTED width, operand:vararg
    POINT
    movl $5, %ecx
    MEMORY \width, \operand
    .endm

    .text
    .globl perform
    .type perform, @function
perform:
    .cfi_startproc
    .irp register, rbx, rbp, r12, r13, r14, r15
    pushq %\register
    .endr
    subq $136, %rsp
    movabsq $0x8877665544332211, %rax
    movq %rax, 24(%rsp)

    /* Never reached, but a server has it. */
    jmp 1f
    PROBE query__start, " 8@$0 8@$0 8@$0 8@$0", 8@$0
1:
#ifndef __PIE__
    FILL
    .irp register, rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15
    VALUE 8, q, %\register
    .endr
    .irp register, eax, ebx, ecx, edx, esi, edi, ebp, esp, r8d, r9d, r10d, r11d, r12d, r13d, r14d, r15d
    VALUE -4, l, %\register
    .endr
    .irp register, ax, bx, cx, dx, si, di, bp, sp, r8w, r9w, r10w, r11w, r12w, r13w, r14w, r15w
    VALUE -2, w, %\register
    .endr
    .irp register, al, bl, cl, dl, sil, dil, bpl, spl, r8b, r9b, r10b, r11b, r12b, r13b, r14b, r15b, ah, bh, ch, dh
    VALUE -1, b, %\register
    .endr
    VALUE -8, q, %rbx
    VALUE 4, l, %ebx
    VALUE 2, w, %bx
    VALUE 1, b, %bl
    VALUE 1, b, %bh

    .irp width, 1, -1
    VALUE \width, b, $-0x80
    .endr
    .irp width, 2, -2
    VALUE \width, w, $5-7
    .endr
    .irp number, 0, 1, -1, 0x10+1, 2147483647, -2147483648, 0xfffffffe, 4294967295, 017777777777, 0b101
    VALUE -4, l, $\number
    .endr
    VALUE 4, l, $-2147483648
    VALUE -8, q, $-1

    .irp number, 0x7fffffffffffffff, -9223372036854775808, 0xffffffffffffffff, 18446744073709551615, 4294967296, -4294967297
    COMMAND 8, $\number
    movabsq $\number, %rax
    movq %rax, expected + at(%rip)
    DONE 8
    .endr

    /* Every register as a base and as an index … */
    .irp register, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
    POINT
    movq $3, %rax
    MEMORY -4, 8(%\register,%rax,4)
    POINT
    movq $3, %\register
    MEMORY -2, 4(%rax,%\register,2)
    .endr
    POINT
    MEMORY 8, -8(%rax)
    /* … of every width … */
    .irp width, 1, 2, 4, 8, -1, -2, -4, -8
    POINT
    MEMORY \width, (%rbx)
    .endr
    /* … and the stack pointer, which can be no index. */
    MEMORY 8, 24(%rsp)
    MEMORY -4, 0x18(%rsp)
    POINTED 8, -24(%rbp)
    POINTED 2, -24+8(%rbp)
    POINTED -4, 0x10(%r13)
    POINTED -1, (%rdi,%rcx)
    POINTED 8, (%rdi,%rcx,4)
    POINTED 2, 16(%rdi,%rcx)
    POINTED -4, -8(%rdi,%rcx,2)
    POINTED -1, (%rdi, %rcx, 8)
    /* Without a base: the whole address is in the index. */
    POINT
    MEMORY 1, (,%rdx,1)
    POINT
    MEMORY -2, 16(,%rdx)
    POINT
    shrq $3, %rdx
    MEMORY 8, (,%rdx,8)
    POINT
    shrq $2, %rdx
    MEMORY -4, 8(,%rdx,4)
#endif
    POINTED 8, middle(%rip)
    POINTED 2, middle+8(%rip)
    POINTED -4, 8+middle(%rip)
    POINTED -1, middle-0x10(%rip)
    POINTED 8, 4+middle-2(%rip)
    POINTED 2, hidden.1(%rip)
    /* The last bytes before a page that is not there. */
    movq last@GOTPCREL(%rip), %rsi
    movq (%rsi), %rsi
    MEMORY 1, -1(%rsi)
    movq last@GOTPCREL(%rip), %rsi
    movq (%rsi), %rsi
    MEMORY -2, -2(%rsi)
    movq last@GOTPCREL(%rip), %rsi
    movq (%rsi), %rsi
    MEMORY 4, -4(%rsi)
#ifndef __PIE__
    /* Only a program at a fixed address can have these. */
    POINTED -4, middle
    POINTED -1, middle+16
    POINTED 8, middle(,1)
    POINTED 2, middle(,%rcx,8)
    POINTED -4, middle-8(,%rcx,2)
    movl $5, %ecx
    movl $2, %edx
    MEMORY 4, middle(%rcx)
    movl $5, %ecx
    MEMORY -4, middle+8(%rcx,%rdx,4)
    VALUE 4, l, $middle
    VALUE 8, q, $middle+8
#endif
    addq $136, %rsp
    .irp register, r15, r14, r13, r12, rbp, rbx
    popq %\register
    .endr
    ret
    .cfi_endproc
    .size perform, . - perform

done:
    PROBE command__done, "", 4@$0
    ret

    .pushsection .stapsdt.base, "aG", "progbits", .stapsdt.base, comdat
    .weak _.stapsdt.base
    .hidden _.stapsdt.base
_.stapsdt.base:
    .space 1
    .size _.stapsdt.base, 1
    .popsection

    .data
    .balign 64
table:
    .set pattern, 0x80
    .rept 64
    .byte pattern
    .set pattern, (pattern + 0x2d) & 0xff
    .endr
middle:
    .rept 96
    .byte pattern
    .set pattern, (pattern + 0x2d) & 0xff
    .endr
hidden.1:
    .8byte 0xfedcba9876543210
    .type hidden.1, @object
    .size hidden.1, 8

    .bss
    .globl expected
    .balign 8
expected:
    .space 8192
    .globl cases
    .data
cases:
    .8byte at / 8

    .section .note.GNU-stack, "", @progbits
