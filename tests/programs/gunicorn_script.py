"""What pip installs as ``gunicorn``: on SIGUSR2 it is executed anew by its path, which ``-m gunicorn`` can't be."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run()
