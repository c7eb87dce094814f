// User-Mode Linux up to 6.12 keeps its processes' extended registers in a buffer of a fixed size. Where a processor has more of them (AMX:
// 11,008 bytes), the host's kernel refuses to set them from a part (EFAULT; arch/x86/kernel/fpu/regset.c), and the machine dies before its
// first program. Preloaded into linux.uml, this sets the whole state: what the machine keeps, over what the process has.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...) {
  static long (*real)(enum __ptrace_request, ...);
  static _Alignas(64) char whole[1 << 16];
  va_list rest;
  va_start(rest, request);
  int process = va_arg(rest, int);
  void *address = va_arg(rest, void *);
  void *data = va_arg(rest, void *);
  va_end(rest);
  if (!real)
    real = (long (*)(enum __ptrace_request, ...))dlsym(RTLD_NEXT, "ptrace");

  if (request == PTRACE_SETREGSET && (long)address == NT_X86_XSTATE) {
    struct iovec *kept = data;
    struct iovec state = {whole, sizeof whole};
    if (real(PTRACE_GETREGSET, process, address, &state) != 0)
      return -1;
    memcpy(whole, kept->iov_base, kept->iov_len < state.iov_len ? kept->iov_len : state.iov_len);
    return real(request, process, address, &state);
  }
  return real(request, process, address, data);
}
