/* 64-bit Linux boot protocol: entered in long mode, identity-mapped below 1 GiB, interrupts off, with flat segments. Where KVM has
 * no hardware behind it, ring 0 is interpreted one instruction at a time and much of it not at all, while ring 3 runs natively:
 * so this leaves ring 0 after a dozen instructions and never comes back. Page tables are constants: 8 GiB, identity, user. */
    .section .text.boot, "ax"
    .globl _start
_start:
    cld
    movl $page_map, %eax
    movq %rax, %cr3
    lgdt descriptor_table
    pushq $0x1b              /* ss: user data */
    leaq stack_top(%rip), %rax
    pushq %rax
    pushq $0x3002            /* rflags: IOPL 3, so that ring 3 may use the serial port; interrupts stay off */
    pushq $0x23              /* cs: user code */
    leaq guest_main(%rip), %rax
    pushq %rax
    iretq

    .section .rodata, "a"
    .balign 16
descriptors:
    .quad 0
    .quad 0x00af9a000000ffff /* 08: kernel code */
    .quad 0x00cf92000000ffff /* 10: kernel data */
    .quad 0x00cff3000000ffff /* 18: user data, accessed */
    .quad 0x00affb000000ffff /* 20: user code, 64-bit, accessed */
descriptors_end:
descriptor_table:
    .word descriptors_end - descriptors - 1
    .quad descriptors

/* Present, writable, user; 0x80: a page of 2 MiB; 0x60: accessed and dirty, so that the processor writes nothing here. */
    .section .data.pages, "aw"
    .balign 4096
page_map:
    .quad pointers + 0x27
    .fill 511, 8, 0
pointers:
    .set i, 0
    .rept 8
    .quad directories + (i << 12) + 0x27
    .set i, i + 1
    .endr
    .fill 504, 8, 0
directories:
    .set i, 0
    .rept 8 * 512
    .quad (i << 21) + 0xe7
    .set i, i + 1
    .endr

    .section .bss
    .balign 4096
    .skip 16384
    .globl stack_top
stack_top:

    .section .note.GNU-stack, "", @progbits
