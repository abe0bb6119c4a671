# Nothing that the kernel complains about. The driver runs this check last.
dmesg | grep -E 'Oops|BUG:|WARNING:|Call Trace|lockup|nobody cared|hung task|rcu.*stall|\b[Ll]ost\b|segfault|I/O error|general protection' |
    grep -v 'bash\[.*segfault' > complaints || true # programs.sh makes a bash overrun its stack
cat complaints
same "$(wc -l < complaints)" 0
