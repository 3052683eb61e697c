#!/usr/bin/python3
"""What one would write with BCC: each command of a server by bpf_trace_printk, which takes three values only.

functions.py BINARY SYMBOL SECURITY HOST        (offsets; bench/overhead knows them)
"""
import sys

from bcc import BPF

PROGRAM = """
#include <uapi/linux/ptrace.h>
struct command { u64 began; u64 thd; char sql[128]; };
BPF_HASH(commands, u32, struct command);
BPF_PERCPU_ARRAY(room, struct command, 1);

int begin(struct pt_regs *ctx)
{
    u32 thread = bpf_get_current_pid_tgid(), zero = 0;
    struct command *command = room.lookup(&zero);
    if (!command)
        return 0;
    command->began = bpf_ktime_get_ns();
    command->thd = PT_REGS_PARM2(ctx);
    bpf_probe_read_user_str(command->sql, sizeof command->sql, (void *)PT_REGS_PARM3(ctx));
    commands.update(&thread, command);
    return 0;
}

int end(struct pt_regs *ctx)
{
    u32 thread = bpf_get_current_pid_tgid();
    struct command *command = commands.lookup(&thread);
    char host[64] = "";
    u64 context = 0, address = 0;
    if (!command)
        return 0;
    bpf_probe_read_user(&context, 8, (void *)(command->thd + SECURITY));
    bpf_probe_read_user(&address, 8, (void *)(context + HOST));
    bpf_probe_read_user_str(host, sizeof host, (void *)address);
    bpf_trace_printk("%s %llu %s\\n", host, bpf_ktime_get_ns() - command->began, command->sql);
    commands.delete(&thread);
    return 0;
}
"""

binary, symbol, security, host = sys.argv[1:5]
bpf = BPF(text=PROGRAM.replace("SECURITY", security).replace("HOST", host))
bpf.attach_uretprobe(name=binary, sym=symbol, fn_name="end")
bpf.attach_uprobe(name=binary, sym=symbol, fn_name="begin")
print("attached", flush=True)
bpf.trace_print()
