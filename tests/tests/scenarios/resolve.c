/* Prints the addresses of each name given, in order, as the C library's resolver finds them: A and AAAA at once. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **names)
{
    for (int i = 1; i < count; i++) {
        struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
        int error = getaddrinfo(names[i], "80", &hints, &found);
        printf("%s", names[i]);
        if (error)
            printf(" %s", error == EAI_NONAME ? "no such name" : gai_strerror(error));
        for (struct addrinfo *at = error ? 0 : found; at; at = at->ai_next) {
            char text[INET6_ADDRSTRLEN], *ip = (char *)at->ai_addr;
            ip += at->ai_family == AF_INET6 ? 8 : 4;
            printf(" %s", inet_ntop(at->ai_family, ip, text, sizeof text));
        }
        printf("\n");
    }
    return 0;
}
