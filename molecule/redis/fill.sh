#!/bin/sh
# Puts 25 MB into each of three instances of 16 MB, and says what comes of it.
fill() { # USER PORT PREFIX [OPTION…]
    user=$1 port=$2 prefix=$3
    shift 3
    python3 -c "
for number in range(400):
    print('SET $prefix:%d %s $*' % (number, 'x' * 65536))" | as "$user" "$port" | sort | uniq -c | sort -rn | sed 's/^ *//'
}
fill shop 16001 page
as shop 16001 INFO stats | grep -o 'evicted_keys:[1-9]'
fill desk 16003 job
as desk 16003 INFO stats | grep -o 'evicted_keys:0'
as desk 16003 DEL $(as desk 16003 KEYS 'job:*') >/dev/null
as shop 16002 SET login:2 lasting EX 9000 >/dev/null
fill shop 16002 login:short EX 60
as shop 16002 GET login:2 | cat
