/*
 * Logs: one line an event on stderr, `time=... level=info role=gateway seat=0 msg="..." key=value
 * ...`, or the same as JSON. Written with one write(2) of at most LOG_LINE_MAX bytes, so that lines
 * of several processes do not mix. Values are quoted and escaped here: text from outside cannot
 * forge a line.
 */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>
#include <stdint.h>

#define LOG_LINE_MAX 2048

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};
enum log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* role: "supervisor", "gateway", ...; seat: -1 for none. Both are kept by reference or value until
 * the process ends. */
void log_init(const char *role, int seat, enum log_format format, enum log_level least);

/* One field of a line. Make them with the functions below; they keep the pointers only until
 * log_event returns. */
struct log_field {
    const char *key;
    enum { LOG_END, LOG_TEXT, LOG_NUMBER, LOG_REAL } kind;
    const char *text;
    int64_t number;
    double real;
};

static inline struct log_field log_text(const char *key, const char *value)
{
    return (struct log_field){key, LOG_TEXT, value ? value : "", 0, 0};
}
static inline struct log_field log_number(const char *key, int64_t value)
{
    return (struct log_field){key, LOG_NUMBER, 0, value, 0};
}
static inline struct log_field log_real(const char *key, double value)
{
    return (struct log_field){key, LOG_REAL, 0, 0, value};
}

/* fields: terminated by an entry of kind LOG_END, or NULL. Entries without a key are passed over.
 */
void log_fields(enum log_level level, const char *message, const struct log_field *fields);

/* log_event(LOG_LEVEL_INFO, "worker ready", log_number("pid", pid), log_text("model", name));
 * The entry without a key is there so that there may be no other. */
#define log_event(level, message, ...)                                                             \
    log_fields((level), (message),                                                                 \
               (const struct log_field[]){log_text(NULL, NULL), ##__VA_ARGS__, {0}})

#endif
