"""`python -m sk_pwiser`: compare models of clicks and conversions."""

from sk_pwiser._command._main import main

if __name__ == "__main__":
    main()
