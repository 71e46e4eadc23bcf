# Sourced by scripts before all else: -h and --help are answered with the script's own first comment.
case "${1:-}" in
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit
        ;;
esac
